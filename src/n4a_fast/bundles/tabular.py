"""Records as text that other programs read: a configuration as JSON, a run as YAML."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from n4a_fast.durable.publish import write_text
from n4a_fast.errors import NotFoundError
from n4a_fast.tables.chains import Chains
from n4a_fast.tables.pipelines import Pipelines
from n4a_fast.tables.runs import Runs


def export_pipeline_config(pipelines: Pipelines, pipeline_id: str, target: Path) -> Path:
    """Write the pipeline's expanded configuration as JSON, in a form that `nirs4all.run` takes again."""
    config = _found(pipelines.find(pipeline_id), "pipeline", pipeline_id)["expanded_config"]
    if (
        isinstance(config, dict) and "steps" in config and "pipeline" not in config
    ):  # nirs4all 0.7 knows the other word only
        config = {"pipeline" if name == "steps" else name: value for name, value in config.items()}
    return write_text(target, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def export_run(runs: Runs, pipelines: Pipelines, chains: Chains, run_id: str, target: Path) -> Path:
    """Write the run's fields, and under `pipelines` its pipelines with their chains, as YAML of plain values."""
    run = _found(runs.find(run_id), "run", run_id)
    told = [
        {
            **(pipelines.find(pipeline_id) or {}),
            "chains": [chains.find(chain_id) for chain_id in chains.of_pipeline(pipeline_id)["chain_id"]],
        }
        for pipeline_id in sorted(pipelines.ids_of_run(run_id))
    ]
    return write_text(
        target, yaml.dump(_plain({**run, "pipelines": told}), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    )


def _found(row: dict[str, Any] | None, kind: str, identifier: str) -> dict[str, Any]:
    if row is None:
        raise NotFoundError(kind, identifier)
    return row


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
