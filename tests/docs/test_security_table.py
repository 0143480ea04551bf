"""The table of `docs/security.md`: each row names the test that holds it; those that no other file holds are here."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from n4a_fast import PipelineLibrary, WorkspaceStore, inspect_bundle
from n4a_fast.errors import UntrustedArtifactError

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
SETTINGS: dict[str, Any] = {"none": "none", "list": ["mypackage.*"], "default": "workspace"}
X = np.random.default_rng(0).random((20, 5))


class Marks:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def workspace(root: Path, model: Any) -> str:
    """A chain of one model that this workspace has saved."""
    with WorkspaceStore(root) as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        saved = store.save_artifact(model, "Ridge", "model", "joblib")
        steps = [{"step_idx": 1, "operator_class": "Ridge", "params": {}}]
        return store.save_chain(pipeline, steps, 1, "Ridge", "", "per_fold", {"fold_0": saved}, {})


def with_models(bundle: Path, model: Any, target: Path) -> Path:
    """The bundle with this in the place of its models."""
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(target, "w") as written:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "manifest.json":
                told = json.loads(content)
                content = json.dumps({key: told[key] for key in told if key != "artifact_integrity"}).encode()
            written.writestr(name, pickle.dumps(model) if name.endswith(".joblib") else content)
    return target


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    chain = workspace(root / "origin", Ridge().fit(X, X[:, 0]))
    with WorkspaceStore(root / "origin") as store:
        good = Path(store.export_chain(chain, root / "good.n4a"))
    return {"good": good, "bad": with_models(good, Marks(root / "mark"), root / "bad.n4a")}


@pytest.mark.parametrize("setting", SETTINGS)
def test_bundle_is_read(tmp_path: Path, bundles: dict[str, Path], setting: str) -> None:
    told = inspect_bundle(bundles["bad"])
    with WorkspaceStore(tmp_path, trusted=SETTINGS[setting]) as store:
        store.import_chain(bundles["bad"])
    assert "mkdir" in str(told)
    assert not (bundles["bad"].with_name("mark")).exists()


@pytest.mark.parametrize("setting", SETTINGS)
def test_bundle_is_replayed(tmp_path: Path, bundles: dict[str, Path], setting: str) -> None:
    with WorkspaceStore(tmp_path / "good", trusted=SETTINGS[setting]) as store:
        chain = store.import_chain(bundles["good"])
        if setting == "none":
            with pytest.raises(UntrustedArtifactError):
                store.replay_chain(chain, X)
        else:
            assert store.replay_chain(chain, X).shape == (20,)
    with WorkspaceStore(tmp_path / "bad", trusted=SETTINGS[setting]) as store:
        chain = store.import_chain(bundles["bad"])
        with pytest.raises(UntrustedArtifactError):
            store.replay_chain(chain, X)
    assert not bundles["bad"].with_name("mark").exists()


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, str]:
    """Somebody's workspace, which makes a folder when its model is loaded."""
    return tmp_path / "theirs", workspace(tmp_path / "theirs", Marks(tmp_path / "mark"))


@pytest.mark.parametrize("setting", SETTINGS)
def test_workspace_is_read(tmp_path: Path, theirs: tuple[Path, str], setting: str) -> None:
    with WorkspaceStore(theirs[0], trusted=SETTINGS[setting]) as store:
        assert store.list_runs().height == store.sql("SELECT * FROM chains").height == 1
        store.leaderboard()
        store.top_predictions(3)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("setting", SETTINGS)
def test_saved_artifact_is_replayed(tmp_path: Path, theirs: tuple[Path, str], setting: str) -> None:
    with WorkspaceStore(theirs[0], trusted=SETTINGS[setting]) as store, pytest.raises(Exception) as caught:  # noqa: PT011
        store.replay_chain(theirs[1], X)
    assert isinstance(caught.value, UntrustedArtifactError) == (setting != "default")
    assert (tmp_path / "mark").exists() == (setting == "default")


@pytest.mark.parametrize("setting", SETTINGS)
def test_artifacts_are_described(tmp_path: Path, theirs: tuple[Path, str], setting: str) -> None:
    with WorkspaceStore(theirs[0], trusted=SETTINGS[setting]) as store:
        saved = store.sql("SELECT artifact_id FROM artifacts").item()
        assert "mkdir" in str(store.describe_artifact(saved))
        store.verify_artifacts()
    assert not (tmp_path / "mark").exists()


def test_template_is_read(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = {"class": "subprocess.Popen", "params": {"args": ["touch", str(mark)]}}
    library = PipelineLibrary(tmp_path / "library")
    folder = library.save_template({"steps": [evil]}, "t")
    shutil.copytree(folder, tmp_path / "sent")
    ours = PipelineLibrary(tmp_path / "ours")
    ours.import_template(tmp_path / "sent", "c", True)
    assert ours.load_template("t") == {"steps": [evil]}
    assert len(ours.list_templates()) == 1
    assert not mark.exists()


def test_each_row_names_a_test_that_is_there() -> None:
    table = PAGE.read_text("utf-8").split("## What can happen")[1]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "From somebody else" not in line]
    assert len(rows) >= 11
    for row in rows:
        ((name, path),) = re.findall(r"\[(\w+)\]\(([\w./]+\.py)\)", row)
        assert f"def test_{name}(" in (PAGE.parent / path).read_text("utf-8"), row
