"""Some runs as a workspace of their own, with what lies of them in shards: what `merge` of it would bring back.

Rows are taken some pipelines at a time, so memory does not follow the size of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from n4a_fast.durable.publish import new_folder
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import Workspace
from n4a_fast.merging.merge import MergedTable, MergeReport, merge_tables
from n4a_fast.merging.shards import opened_shard, shards_below, unless_removed
from n4a_fast.values import checks

_PREDICTIONS_AT_ONCE, _PIPELINES_AT_ONCE = 2**11, 2**10  # each time all ids of the workspace are looked through
_COUNTS = (
    "SELECT pipeline_id, count(*) FROM predictions WHERE pipeline_id IN (SELECT id FROM batch) GROUP BY pipeline_id"
)
_OF_RUNS = {
    "projects": "project_id IN (SELECT project_id FROM runs WHERE run_id IN (SELECT id FROM batch))",
    "runs": "run_id IN (SELECT id FROM batch)",
    "metrics": "true",
}
_PREDICTIONS = "(SELECT prediction_id FROM predictions WHERE pipeline_id IN (SELECT id FROM batch))"
_CHAINS = "(SELECT chain_id FROM chains WHERE pipeline_id IN (SELECT id FROM batch))"
_ARTIFACTS = f"(SELECT artifact_id FROM chain_artifacts WHERE released IS NOT TRUE AND chain_id IN {_CHAINS})"


def _contents(*columns: str) -> str:
    values = f"prediction_values WHERE prediction_id IN {_PREDICTIONS}"
    return " OR ".join(f"content_hash IN (SELECT {column} FROM {values})" for column in columns)


_OF_PIPELINES = {
    "pipelines": "pipeline_id IN (SELECT id FROM batch)",
    "stored_artifacts": f"artifact_id IN {_ARTIFACTS}",
    "chain_artifacts": f"chain_id IN {_CHAINS}",
    "chains": "pipeline_id IN (SELECT id FROM batch)",
    "shared_arrays": _contents("y_true_hash", "weights_hash"),
    "shared_indices": _contents("sample_indices_hash"),
    "prediction_metadata": f"prediction_id IN {_PREDICTIONS}",
    "shared_metadata": f"""content_hash IN (SELECT content_hash FROM prediction_metadata
        WHERE prediction_id IN {_PREDICTIONS})""",
    "prediction_values": f"prediction_id IN {_PREDICTIONS}",
    "predictions": "pipeline_id IN (SELECT id FROM batch)",
    "logs": "pipeline_id IN (SELECT id FROM batch)",
    "carried": f"row_id IN (SELECT id FROM batch) OR row_id IN {_PREDICTIONS} OR row_id IN {_CHAINS}",
}


def extract(source: Workspace, run_ids: Sequence[str], to: Path) -> MergeReport:
    """A new workspace with these runs and all below them; the source is only read."""
    run_ids = checks.texts(run_ids, "run_ids")
    for run_id in run_ids:
        source.runs.require(run_id)
    added: dict[str, int] = {}
    with new_folder(to) as draft:
        target = open_workspace(draft, read_only=False, lock_timeout=source.database.lock_timeout)
        try:
            for path in shards_below(source):  # first: what is merged meanwhile is in both
                with unless_removed(path), opened_shard(source, path) as shard:
                    _take_runs(shard, target, run_ids, added)
            _take_runs(source, target, run_ids, added)
        finally:
            target.release()
    return MergeReport((source.root,), tuple(MergedTable(name, rows, rows) for name, rows in added.items()))


def _take_runs(source: Workspace, target: Workspace, run_ids: Sequence[str], added: dict[str, int]) -> None:
    """Those of the runs that a workspace has, with all below them."""
    source.flush()
    pipelines = [pipeline for run_id in run_ids for pipeline in source.pipelines.ids_of_run(run_id)]
    _add(added, _take(source, target, _OF_RUNS, run_ids))
    for some in _pieces(source, pipelines):
        _add(added, _take(source, target, _OF_PIPELINES, some))


def _pieces(source: Workspace, pipelines: Sequence[str]) -> Iterator[list[str]]:
    """Pipelines that have some predictions together; one that has more alone."""
    batch = pa.table({"id": pa.array(pipelines, pa.string())})
    with source.lock, source.database.reading():
        columns = source.database.select(_COUNTS, batch=batch).columns
    counts = dict(zip(*(column.to_pylist() for column in columns), strict=True))
    piece, predictions = list[str](), 0
    for pipeline in pipelines:
        predictions += counts.get(pipeline, 0)
        if piece and (predictions > _PREDICTIONS_AT_ONCE or len(piece) == _PIPELINES_AT_ONCE):
            yield piece
            piece, predictions = [], counts.get(pipeline, 0)
        piece.append(pipeline)
    if piece:
        yield piece


def _take(source: Workspace, target: Workspace, wanted: dict[str, str], ids: Sequence[str]) -> list[MergedTable]:
    batch = pa.table({"id": pa.array(ids, pa.string())})
    with source.lock, source.database.reading():
        rows = {
            name: source.database.select(f"SELECT * FROM {name} WHERE {where}", batch=batch)
            for name, where in wanted.items()
        }
    return merge_tables(target, source.root, rows)


def _add(added: dict[str, int], tables: list[MergedTable]) -> None:
    for table in tables:
        added[table.table] = added.get(table.table, 0) + table.added
