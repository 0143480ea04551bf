"""Records as files that other programs read: JSON, YAML and Parquet.

A table of predictions is written in batches, so it may be larger than memory. Its columns keep the
types of the store; `scores` and `best_params` are JSON text. It leaves models to the chains.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from n4a_fast.bundles.target import new_file, write_text
from n4a_fast.database import Database
from n4a_fast.errors import NotFoundError
from n4a_fast.predictions.queries import COLUMNS, where_clause
from n4a_fast.records.chains import Chains
from n4a_fast.records.pipelines import Pipelines
from n4a_fast.records.runs import Runs

_BATCH = 10_000
_ARRAYS_BATCH = 2_000  # rows with arrays are some kilobytes each
_IDS = "SELECT prediction_id FROM predictions{where} ORDER BY created_at, prediction_id"
_ROWS = f"SELECT {COLUMNS} FROM predictions SEMI JOIN wanted USING (prediction_id) ORDER BY created_at, prediction_id"
_ROWS_WITH_ARRAYS = f"""SELECT * FROM (SELECT {COLUMNS} FROM predictions SEMI JOIN wanted USING (prediction_id)) p
LEFT JOIN (FROM prediction_arrays SEMI JOIN wanted USING (prediction_id)) a USING (prediction_id) ORDER BY created_at, prediction_id"""


def export_pipeline_config(pipelines: Pipelines, pipeline_id: str, target: Path) -> Path:
    """Write the pipeline's expanded configuration as JSON, in a form that `nirs4all.run` takes again."""
    config = _found(pipelines.find(pipeline_id), "pipeline", pipeline_id)["expanded_config"]
    if isinstance(config, dict) and "steps" in config and "pipeline" not in config:  # nirs4all 0.7 knows the other word only
        config = {"pipeline" if name == "steps" else name: value for name, value in config.items()}
    return write_text(target, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def export_run(runs: Runs, pipelines: Pipelines, chains: Chains, run_id: str, target: Path) -> Path:
    """Write the run, its summary, its pipelines and their chains as YAML of plain values."""
    run = _found(runs.find(run_id), "run", run_id)
    told = [
        {**(pipelines.find(pipeline_id) or {}), "chains": [chains.find(chain_id) for chain_id in chains.of_pipeline(pipeline_id)["chain_id"]]}
        for pipeline_id in sorted(pipelines.ids_of_run(run_id))
    ]
    return write_text(target, yaml.dump(_plain({"run": run, "pipelines": told}), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def export_predictions(database: Database, target: Path, arrays: bool, filters: dict[str, Any]) -> Path:
    """Write the predictions that match every filter, oldest first, as one Parquet file."""
    where, params = where_clause(filters)
    query, size = (_ROWS_WITH_ARRAYS, _ARRAYS_BATCH) if arrays else (_ROWS, _BATCH)
    with new_file(target) as draft:
        wanted = database.arrow(_IDS.format(where=where), params)
        schema = _as_text(database.select(query, wanted=wanted.slice(0, 0))).schema
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            for start in range(0, wanted.num_rows, size):
                writer.write_table(_as_text(database.select(query, wanted=wanted.slice(start, size))).cast(schema))
    return target


def _found(row: dict[str, Any] | None, kind: str, identifier: str) -> dict[str, Any]:
    if row is None:
        raise NotFoundError(kind, identifier)
    return row


def _as_text(table: pa.Table) -> pa.Table:
    """JSON columns as plain strings: readers without the JSON type get them too."""
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table.replace_schema_metadata()


def _plain(value: Any) -> Any:
    """`value` with times as ISO text in UTC, which reads the same in every YAML library."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


class _Dumper(yaml.SafeDumper):
    """Writes equal values again where they recur; anchors are hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
