"""Run in an environment with nirs4all, without this package: what it makes of exported files.

    python use_exports.py X.npy config.json workspace bundle.n4a ...

Prints one JSON object: the version, the predictions of each bundle by nirs4all's BundleLoader, the number of
predictions of a run of the exported configuration, given as a path and as a list, and the template "ours" of the
workspace's library. Saves the template "theirs" beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
from nirs4all.data.dataset import SpectroDataset
from nirs4all.pipeline.bundle import BundleLoader
from nirs4all.pipeline.storage.library import PipelineLibrary


def ran(pipeline: Any) -> int:
    """How many predictions a run of this pipeline gives."""
    X = np.random.default_rng(0).normal(loc=2.0, size=(60, 6))
    data = SpectroDataset("made")
    data.add_samples(X[:45], {"partition": "train"})
    data.add_samples(X[45:], {"partition": "test"})
    data.add_targets(X[:, 0] - X[:, 3])
    options: dict[str, Any] = {} if nirs4all.__version__.startswith("0.") else {"engine": "legacy"}
    with tempfile.TemporaryDirectory() as workspace:
        found = nirs4all.run(
            pipeline=pipeline,
            dataset=data,
            workspace_path=workspace,
            verbose=0,
            save_charts=False,
            plots_visible=False,
            refit=False,
            **options,
        )
        return int(found.num_predictions)


def main(spectra: str, config: str, workspace: str, *bundles: str) -> dict[str, Any]:
    library = PipelineLibrary(Path(workspace))
    library.save_template({"pipeline": ["theirs"]}, "theirs", "modeling", "made there", ["tag"], {"rmse": 0.5})
    X = np.load(spectra)
    predicted = {path: np.ravel(BundleLoader(path).predict(X)).tolist() for path in bundles}
    with open(config, encoding="utf-8") as file:
        ran_both = [ran(config), ran(json.load(file))]
    return {
        "version": nirs4all.__version__,
        "predicted": predicted,
        "ran": ran_both,
        "template": library.load_template("ours"),
    }


if __name__ == "__main__":
    told = main(*sys.argv[1:])
    print(json.dumps(told))
