"""What is in a workspace, by the names that its writers gave, read through the documented calls and plain SQL."""

from __future__ import annotations

from typing import Any

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError

UNIQUE = {
    "runs": "name",
    "pipelines": "name",
    "chains": "preprocessings",
    "predictions": "model_name",
    "logs": "message",
    "projects": "name",
    "artifacts": "artifact_id",
    "prediction_arrays": "prediction_id",
    "chain_artifacts": "(chain_id, artifact_id)",
}
DANGLING = {
    "pipelines without a run": "pipelines ANTI JOIN runs USING (run_id)",
    "chains without a pipeline": "chains ANTI JOIN pipelines USING (pipeline_id)",
    "logs without a pipeline": "logs ANTI JOIN pipelines USING (pipeline_id)",
    "predictions without a pipeline": "predictions ANTI JOIN pipelines USING (pipeline_id)",
    "predictions without their chain": (
        "(FROM predictions WHERE chain_id IS NOT NULL) AS p ANTI JOIN chains USING (chain_id)"
    ),
    "arrays without a prediction": "prediction_arrays ANTI JOIN predictions USING (prediction_id)",
    "values without a prediction": "prediction_values ANTI JOIN predictions USING (prediction_id)",
    "chains of an artifact without a row": (
        "(FROM chain_artifacts WHERE released IS NOT TRUE) ANTI JOIN artifacts USING (artifact_id)"
    ),
    "artifacts of no chain": "chain_artifacts ANTI JOIN chains USING (chain_id)",
}


class Found:
    """Everything in a store; `faults` are rows that are there twice, or refer to what is not there."""

    def __init__(self, store: WorkspaceStore) -> None:
        self.faults: list[tuple[str, str]] = []
        self.runs: dict[str, str] = dict(store.sql("SELECT name, status FROM runs").rows())
        self.pipelines: dict[str, str] = dict(store.sql("SELECT name, status FROM pipelines").rows())
        self.projects = set(store.sql("SELECT name FROM projects")["name"])
        self.logs = set(store.sql("SELECT message FROM logs")["message"])
        self.predictions: dict[str, Any] = dict(store.sql("SELECT model_name, prediction_id FROM predictions").rows())
        self.arrays: dict[str, list[float]] = dict(
            store.sql(
                "SELECT model_name, y_pred::DOUBLE[] FROM predictions JOIN prediction_arrays USING (prediction_id)"
            ).rows()
        )
        self._look_for_doubled_and_dangling(store)
        self.chains = self._chains(store)

    def status(self, pipeline: str) -> str | None:
        return self.pipelines.get(pipeline)

    def _look_for_doubled_and_dangling(self, store: WorkspaceStore) -> None:
        for table, name in UNIQUE.items():
            twice = store.sql(f"SELECT {name} AS name FROM {table} GROUP BY ALL HAVING count(*) > 1")["name"].to_list()
            self.faults += [("doubled", f"{table}: {twice[:5]}")] if twice else []
        for what, tables in DANGLING.items():
            count = store.sql(f"SELECT count(*) AS n FROM {tables}")["n"][0]
            self.faults += [("dangling", f"{count} {what}")] if count else []

    def _chains(self, store: WorkspaceStore) -> dict[str, list[str]]:
        """The contents of each chain's artifacts, loaded."""
        rows = store.sql(
            "SELECT preprocessings, artifact_id FROM chains LEFT JOIN chain_artifacts USING (chain_id)"
        ).rows()
        contents: dict[str, set[str]] = {}
        loaded: dict[str, str] = {}
        for chain, artifact in rows:
            held = contents.setdefault(chain, set())
            if artifact is None:
                continue
            try:
                if artifact not in loaded:
                    loaded[artifact] = store.load_artifact(artifact)["content"]
                held.add(loaded[artifact])
            except StoreError as error:
                self.faults.append(("dangling", f"{chain}: {error}"))
        return {chain: sorted(held) for chain, held in contents.items()}
