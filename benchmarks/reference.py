"""The plain way, frozen: row by row into keyed tables, compressed joblib files, chains replayed one after another.

It does what a plain store does and nothing more, so that a ratio against it, taken in the same
run, means the same on every machine. Do not make it faster: a change here changes every ratio
in the history.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np

_TABLES = (
    "CREATE TABLE pipelines (pipeline_id VARCHAR PRIMARY KEY, name VARCHAR, status VARCHAR)",
    """CREATE TABLE predictions (
    prediction_id VARCHAR PRIMARY KEY, pipeline_id VARCHAR REFERENCES pipelines(pipeline_id),
        model_name VARCHAR, fold_id VARCHAR, partition VARCHAR, val_score DOUBLE, scores JSON)""",
    """CREATE TABLE prediction_arrays (prediction_id VARCHAR PRIMARY KEY REFERENCES predictions(prediction_id),
        y_true DOUBLE[], y_pred DOUBLE[], sample_indices INTEGER[])""",
)


class RowByRowStore:
    """Autocommitted single-row inserts into keyed tables."""

    def __init__(self, folder: Path) -> None:
        self._connection = duckdb.connect(str(folder / "reference.duckdb"))
        for table in _TABLES:
            self._connection.execute(table)

    def fill(self, rows: int, samples: int) -> None:
        """Rows that are there already, put in at once: the keys are what later inserts pay for."""
        pipeline_id = self.begin_pipeline()
        self._connection.execute(
            "INSERT INTO predictions SELECT uuid()::VARCHAR, ?, 'PLS', i::VARCHAR, 'val', 0.1, '{}' FROM range(?) t(i)",
            [pipeline_id, rows],
        )
        self._connection.execute(
            "INSERT INTO prediction_arrays SELECT prediction_id, [random() FOR x IN range(?)], [random() FOR x IN"
            " range(?)], [0] FROM predictions",
            [samples, samples],
        )

    def begin_pipeline(self) -> str:
        pipeline_id = str(uuid.uuid4())
        self._connection.execute("INSERT INTO pipelines VALUES (?, 'p', 'running')", [pipeline_id])
        return pipeline_id

    def save(
        self,
        pipeline_id: str,
        fold: str,
        partition: str,
        score: float,
        scores: dict[str, Any],
        arrays: tuple[np.ndarray[Any, Any], ...],
    ) -> str:
        prediction_id = str(uuid.uuid4())
        self._connection.execute(
            "SELECT prediction_id FROM predictions WHERE pipeline_id = ? AND fold_id = ? AND partition = ?",
            [pipeline_id, fold, partition],
        ).fetchall()
        row = [prediction_id, pipeline_id, "PLS", fold, partition, score, json.dumps(scores)]
        self._connection.execute("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._connection.execute(
            "INSERT INTO prediction_arrays VALUES (?, ?, ?, ?)", [prediction_id, *(array.tolist() for array in arrays)]
        )
        return prediction_id

    def arrays(self, prediction_id: str) -> np.ndarray[Any, Any]:
        found = self._connection.execute(
            "SELECT y_pred FROM prediction_arrays WHERE prediction_id = ?", [prediction_id]
        ).fetchall()
        return np.array(found[0][0])

    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM predictions").fetchall()[0][0])

    def close(self) -> None:
        self._connection.close()


class CompressedArtifacts:
    """Objects as joblib files with compress=3, named by the sha256 of their bytes; each load reads and unpickles."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, obj: Any) -> str:
        buffer = BytesIO()
        joblib.dump(obj, buffer, compress=3)
        content = buffer.getvalue()
        artifact_id = hashlib.sha256(content).hexdigest()
        path = self._folder / artifact_id[:2] / f"{artifact_id}.joblib"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return artifact_id

    def load(self, artifact_id: str) -> Any:
        return joblib.load(self._folder / artifact_id[:2] / f"{artifact_id}.joblib")


def replay_one(
    load: Any, shared: Sequence[str], folds: Mapping[str, str], X: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """A chain's prediction: every transformer loaded and applied in turn, every fold's model loaded and asked, the mean
    of the folds.

    `load` turns an id into an object: `CompressedArtifacts.load`, or a dict's `__getitem__` for objects in memory.
    """
    for artifact_id in shared:
        X = load(artifact_id).transform(X)
    predictions = [np.asarray(load(artifact_id).predict(X)).reshape(len(X), -1) for artifact_id in folds.values()]
    mean = np.mean(predictions, axis=0)
    return mean[:, 0] if mean.shape[1] == 1 else mean


def replay_in_turn(
    load: Any, chains: Sequence[tuple[Sequence[str], Mapping[str, str]]], X: np.ndarray[Any, Any]
) -> list[np.ndarray[Any, Any]]:
    """`replay_one` for each (shared, folds) of many chains, nothing shared between them."""
    return [replay_one(load, shared, folds, X) for shared, folds in chains]


PLAIN = "reference.replay_one, objects in memory"


def agree(found: Any, expected: Any, within: float = 1e-11) -> bool:
    """Whether predictions are equal, relative to the largest value."""
    return bool(np.abs(np.asarray(found) - expected).max() <= within * np.abs(expected).max())


def append_plainly(
    rows: list[tuple[Any, ...]], fields: Sequence[Any], scores: Mapping[str, Any], array: np.ndarray[Any, Any]
) -> None:
    """What saving a prediction costs at least in plain Python: an id, a row of fields, scores as JSON, a copy of the
    array.
    """
    rows.append((str(uuid.uuid4()), *fields, json.dumps(scores), array.tolist()))
