"""Makes bundles as one release of nirs4all writes them, and what its own loader predicts from them.

    python make_bundles.py spectra.npz 0.7.1     # X (300 x 1076) and y; run by a Python that has that release

All operators are scikit-learn's, so the tests that read the bundles need nothing else. Each is written twice, by
the result of the run ("result") and by the workspace's store ("store"); a .npy beside it holds predictions of
the rows in X.npy, unless that release cannot load its own file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
from nirs4all.data.dataset import SpectroDataset
from nirs4all.pipeline.bundle import BundleLoader
from nirs4all.pipeline.storage import WorkspaceStore
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

HERE = Path(__file__).parent
TRAIN = 240


def cases() -> dict[str, tuple[list[Any], bool]]:
    split = ShuffleSplit(n_splits=2, test_size=0.25, random_state=0)
    plain = [Normalizer(), MinMaxScaler(), {"y_processing": StandardScaler()}, split, {"model": PLSRegression(3)}]
    augmented = [
        {"feature_augmentation": [Normalizer(), StandardScaler()], "action": "extend"},
        MinMaxScaler(),
        split,
        {"model": Ridge(0.1)},
    ]
    return {"plain": (plain, False), "refit": (plain, True), "augmented": (augmented, False)}


def dataset(X: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> SpectroDataset:
    found = SpectroDataset("spectra")
    found.add_samples(X[:TRAIN], {"partition": "train"})
    found.add_samples(X[TRAIN:], {"partition": "test"})
    found.add_targets(y)
    return found


def keep_predictions(bundle: Path, X: np.ndarray[Any, Any]) -> None:
    try:
        np.save(bundle.with_suffix(".npy"), np.ravel(BundleLoader(bundle).predict(X)))
    except (RuntimeError, ValueError) as error:
        print(f"{bundle.name}: its own loader fails, {error}")


def main(spectra: str, version: str) -> None:
    assert nirs4all.__version__ == version
    with np.load(spectra) as data:
        X, y = data["X"][:, ::32].astype(np.float64), data["y"].ravel()
    np.save(HERE / "X.npy", X[TRAIN : TRAIN + 8])
    options: dict[str, Any] = {"verbose": 0, "save_artifacts": True, "save_charts": False, "plots_visible": False}
    if not version.startswith("0."):
        options["engine"] = "legacy"
    for name, (pipeline, refit) in cases().items():
        with tempfile.TemporaryDirectory() as workspace:
            result = nirs4all.run(
                pipeline=pipeline, dataset=dataset(X, y), workspace_path=workspace, refit=refit, **options
            )
            bundles = [HERE / f"{name}-{kind}-{version}.n4a" for kind in ("result", "store")]
            result.export(bundles[0])
            store = WorkspaceStore(Path(workspace))
            pipelines = store.list_pipelines()["pipeline_id"]
            chains = [
                chain for pipeline_id in pipelines for chain in store.get_chains_for_pipeline(pipeline_id).to_dicts()
            ]
            wanted = [chain for chain in chains if ("final" in str(chain["fold_artifacts"])) == refit] or chains
            store.export_chain(wanted[0]["chain_id"], bundles[1])
            store.close()
            for bundle in bundles:
                keep_predictions(bundle, X[TRAIN : TRAIN + 8])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
