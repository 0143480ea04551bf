"""Both releases of nirs4all, in environments of their own, load exported bundles and templates, and run
exported configurations.

`make test-bundles` builds the environments and runs this; without them it is skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline

from n4a_fast import PipelineLibrary, WorkspaceStore

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "tests" / "bundles"))  # where the chains are
from bundle_chains import CASES, case, save, spectra  # noqa: E402

STEPS: list[Any] = [
    "sklearn.preprocessing._data.MinMaxScaler",
    {"y_processing": "sklearn.preprocessing._data.StandardScaler"},
    {
        "class": "sklearn.model_selection._split.ShuffleSplit",
        "params": {"n_splits": 2, "test_size": 0.25, "random_state": 0},
    },
    {"model": {"class": "sklearn.linear_model._ridge.Ridge", "params": {"alpha": 0.1}}},
]


@pytest.mark.parametrize("version", ["0.7.1", "1.4.10"])
@pytest.mark.parametrize("config", [STEPS, {"steps": STEPS, "random_state": 3}], ids=["list", "dict"])
def test_bundles_predict_configurations_run_and_templates_load(
    store: WorkspaceStore, tmp_path: Path, version: str, config: Any
) -> None:
    python = ROOT / f".venv-nirs4all-{version}" / "bin" / "python"
    if not (python.parent.parent / ".ready").exists():
        pytest.skip(f"make .venv-nirs4all-{version}/.ready builds the environment")
    run = store.begin_run("run", {}, [])
    pipeline = store.begin_pipeline(run, "ridge", config, [], "made", "hash")
    chains = {name: save(store, *case(name), pipeline=begin_pipeline(store, run)) for name in CASES}
    files = {name: store.export_chain(chain, tmp_path / f"{name}.n4a") for name, chain in chains.items()}
    np.save(tmp_path / "X.npy", spectra())
    script, target = (
        Path(__file__).with_name("use_exports.py"),
        store.export_pipeline_config(pipeline, tmp_path / "config.json"),
    )
    library = PipelineLibrary(store.workspace_path)
    library.save_template({"pipeline": STEPS}, "ours", tags=["tag"])
    arguments = [script, tmp_path / "X.npy", target, store.workspace_path, *files.values()]
    done = subprocess.run(
        [python, "-W", "ignore", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"] == version
    assert told["ran"] == [12, 12]
    assert told["template"] == {"pipeline": STEPS}
    assert library.load_template("theirs") == {"pipeline": ["theirs"]}
    assert [(found["name"], found["category"]) for found in library.list_templates(tags=["tag"])] == [
        ("ours", "general"),
        ("theirs", "modeling"),
    ]
    for name, chain in chains.items():
        expected, found = np.ravel(store.replay_chain(chain, spectra())), told["predicted"][str(files[name])]
        if expected.dtype.kind == "U":
            assert found == expected.tolist()
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
