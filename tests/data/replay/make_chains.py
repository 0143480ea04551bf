"""Makes chains.zip: runs nirs4all 0.7.1 (with duckdb<2) on spectra and keeps its chains, artifacts and test
predictions.

    python make_chains.py spectra.npz     # X (300 x 1076) and y; every 8th column is used

All operators are scikit-learn's, so the tests that read the file need nothing else.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import nirs4all
import numpy as np
from nirs4all.data.dataset import SpectroDataset
from nirs4all.operators.filters import YOutlierFilter
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import (
    LabelEncoder,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent
TRAIN = 240


def augment(action: str) -> dict[str, Any]:
    return {"feature_augmentation": [Normalizer(), StandardScaler()], "action": action}


def augment_again(action: str) -> dict[str, Any]:
    return {"feature_augmentation": [MaxAbsScaler(), RobustScaler()], "action": action}


def cases() -> dict[str, list[Any]]:
    split, ridge = ShuffleSplit(n_splits=2, test_size=0.25, random_state=0), {"model": Ridge(alpha=0.1)}
    tree = {"model": DecisionTreeClassifier(max_depth=4, random_state=0)}
    return {
        "extend": [augment("extend"), MinMaxScaler(), split, ridge],
        "extend_twice": [RobustScaler(), augment("extend"), augment_again("extend"), split, ridge],
        "add": [MinMaxScaler(), augment("add"), split, ridge],
        "add_twice": [augment("add"), augment_again("add"), split, ridge],
        "replace": [augment("replace"), MinMaxScaler(), split, ridge],
        "replace_then_add": [augment("replace"), augment_again("add"), MinMaxScaler(), split, ridge],
        "replace_twice": [augment("replace"), augment_again("replace"), MinMaxScaler(), split, ridge],
        "one_target_step": [MinMaxScaler(), {"y_processing": StandardScaler()}, split, ridge],
        "two_target_steps": [MinMaxScaler(), {"y_processing": [StandardScaler(), PowerTransformer()]}, split, ridge],
        "nested_list": [StandardScaler(), [Normalizer(), MinMaxScaler()], split, ridge],
        "sources": [Normalizer(), MinMaxScaler(), split, ridge],
        "sources_extend": [augment("extend"), MinMaxScaler(), split, ridge],
        "no_folds": [MinMaxScaler(), ridge],
        "split_keyword": [MinMaxScaler(), {"split": split}, ridge],
        "chart": ["chart_2d", MinMaxScaler(), split, ridge],
        "excluded": [MinMaxScaler(), {"exclude": YOutlierFilter()}, split, ridge],
        "augmented_samples": [
            {"sample_augmentation": {"transformers": [Normalizer()], "count": 1}},
            MinMaxScaler(),
            split,
            ridge,
        ],
        "branches": [MinMaxScaler(), split, {"branch": [[Normalizer()], [RobustScaler(), StandardScaler()]]}, ridge],
        "models_in_branches": [MinMaxScaler(), split, {"branch": [[Normalizer(), ridge], [RobustScaler(), ridge]]}],
        "two_models": [MinMaxScaler(), split, ridge, {"model": Ridge(alpha=10.0)}],
        "refit": [Normalizer(), split, ridge],
        "classes": [MinMaxScaler(), split, tree],
        "classes_encoded": [MinMaxScaler(), {"y_processing": LabelEncoder()}, split, tree],
    }


def dataset(name: str, X: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> SpectroDataset:
    found = SpectroDataset("spectra")
    blocks = [X, X[:, ::2]] if name.startswith("sources") else [X]
    for partition, rows in (("train", slice(None, TRAIN)), ("test", slice(TRAIN, None))):
        parts = [block[rows] for block in blocks]
        found.add_samples(parts if len(parts) > 1 else parts[0], {"partition": partition})
    found.add_targets(
        np.array([3, 5, 9])[np.digitize(y, np.quantile(y, [0.33, 0.66]))] if name.startswith("classes") else y
    )
    return found


def stored(workspace: Path, archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    """The chains of a workspace with their test predictions; their artifact files go into the archive."""
    with duckdb.connect(str(workspace / "store.duckdb")) as connection:
        files = dict(connection.execute("SELECT artifact_id, artifact_path FROM artifacts").fetchall())
        rows = connection.sql("SELECT * EXCLUDE created_at FROM chains ORDER BY created_at").fetchall()
        names = connection.sql("SELECT * EXCLUDE created_at FROM chains").columns
        found = []
        for row in rows:
            chain = dict(zip(names, row, strict=True))
            chain |= {
                key: json.loads(chain[key]) if chain[key] else chain[key]
                for key in ("steps", "fold_artifacts", "shared_artifacts", "branch_path")
            }
            sql = (
                "SELECT fold_id, y_pred FROM predictions JOIN prediction_arrays USING (prediction_id) WHERE chain_id ="
                " ? AND partition = 'test'"
            )
            predictions = dict(connection.execute(sql, [chain["chain_id"]]).fetchall())
            found.append(
                {"chain": chain, "y_pred": predictions, "files": {key: Path(path).name for key, path in files.items()}}
            )
    for path in set(files.values()):
        if Path(path).name not in archive.namelist():
            archive.write(workspace / "artifacts" / path.removeprefix("artifacts/"), Path(path).name)
    return found


def main(spectra: str) -> None:
    with np.load(spectra) as data:
        X, y = data["X"][:, ::8], data["y"].ravel()
    chains = {}
    with (
        zipfile.ZipFile(HERE / "chains.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        tempfile.TemporaryDirectory() as folder,
    ):
        for name, pipeline in cases().items():
            workspace = Path(folder) / name
            options = {
                "verbose": 0,
                "save_artifacts": True,
                "save_charts": False,
                "plots_visible": False,
                "refit": name == "refit",
            }
            nirs4all.run(pipeline=pipeline, dataset=dataset(name, X, y), workspace_path=str(workspace), **options)
            chains[name] = stored(workspace, archive)
        archive.writestr("chains.json", json.dumps(chains, indent=1))
    np.savez_compressed(HERE / "chains-X.npz", X=X[TRAIN:].astype(np.float32))


if __name__ == "__main__":
    main(sys.argv[1])
