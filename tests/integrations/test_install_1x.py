"""Switching the store of a nirs4all of 1.x: what is taken over, which folders stay nirs4all's, who reads past it.

A package in its shape stands in for it: a store on SQLite, its arrays, a reader that opens the file itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, child, kill, read_line

from n4a_fast import WorkspaceStore

STORE = """
import sqlite3
from pathlib import Path
from nirs4all.pipeline.storage.array_store import ArrayStore

class WorkspaceStore:
    def __init__(self, workspace_path, *, read_only=False):
        self.connection = sqlite3.connect(Path(workspace_path) / "store.sqlite")
    @classmethod
    def open_readonly(cls, workspace_path):
        return cls(workspace_path, read_only=True)
    @property
    def array_store(self):
        return ArrayStore()
    def list_conformal_results(self, *, limit=100, offset=0):
        return self._fetch_pl("SELECT conformal_id FROM conformal_results LIMIT ? OFFSET ?", [limit, offset])
    {more}
"""
MODULES = {
    "nirs4all/__init__.py": "__version__ = {version!r}\n",
    "nirs4all/pipeline/__init__.py": "",
    "nirs4all/pipeline/storage/__init__.py": "",
    "nirs4all/pipeline/storage/array_store.py": "class ArrayStore:\n    def load_batch(self, prediction_ids): ...\n",
    "nirs4all/pipeline/storage/model_catalogue.py": (
        "import sqlite3\nfrom pathlib import Path\n"
        "def read(workspace):\n    database = Path(workspace) / 'store.sqlite'\n"
        "    if not database.is_file():\n        return None\n"
        "    connection = sqlite3.connect(f'{database.resolve().as_uri()}?mode=ro', uri=True)\n"
        "    connection.row_factory = sqlite3.Row\n    try:\n        connection.execute('BEGIN')\n"
        "        version = connection.execute('PRAGMA user_version').fetchone()[0]\n"
        "        return [version, *(dict(row) for row in connection.execute('SELECT name, created_at FROM runs'))]\n"
        "    finally:\n        connection.close()\n"
    ),
    "nirs4all/data/__init__.py": "",
    "nirs4all/data/predictions.py": (
        "class Predictions:\n    _store_backend = None\n    @classmethod\n"
        "    def register_store_backend(cls, backend):\n"
        "        cls._store_backend = backend\n"
    ),
    "nirs4all-{version}.dist-info/METADATA": "Metadata-Version: 2.1\nName: nirs4all\nVersion: {version}\n",
}
HOME = "nirs4all.pipeline.storage.workspace_store"

Program = Callable[..., Any]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run a script with a nirs4all of this shape on its path; what it prints, as JSON, or its error."""

    def run(script: str, *arguments: object, more: str = "pass", version: str = "1.4.10", check: bool = True) -> Any:
        modules = {**MODULES, "nirs4all/pipeline/storage/workspace_store.py": STORE.replace("{more}", more)}
        folder = tmp_path / "packages"
        for name, text in modules.items():
            path = folder / name.replace("{version}", version)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{version!r}", repr(version)).replace("{version}", version))
        prepared = f"import json, os, sys\nsys.path.insert(0, {str(folder)!r})\nos.chdir({str(tmp_path)!r})\n"
        forked = child(prepared + script, *arguments)
        output, errors = forked.communicate(timeout=DEADLINE)
        assert forked.returncode == 0 or not check, errors
        return json.loads(output) if check else errors

    return run


ORDERS = {
    "before": (
        "import n4a_fast\nn4a_fast.install()\nfrom nirs4all.pipeline.storage.workspace_store import WorkspaceStore\n"
    ),
    "after": (
        "from nirs4all.pipeline.storage.workspace_store import WorkspaceStore\n"
        "from nirs4all.pipeline.storage import model_catalogue\n"
        "from nirs4all.data.predictions import Predictions\nPredictions.register_store_backend(WorkspaceStore)\n"
        "import n4a_fast\nn4a_fast.install()\n"
        "from nirs4all.pipeline.storage.workspace_store import WorkspaceStore\n"
        "assert Predictions._store_backend is WorkspaceStore\n"
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_new_folder_is_ours_and_is_found_by_those_who_look_for_sqlite(
    program: Program, tmp_path: Path, order: str
) -> None:
    script = (
        ORDERS[order]
        + "from nirs4all.pipeline.storage.model_catalogue import read\n"
        + "with WorkspaceStore(sys.argv[1]) as store:\n    store.begin_run('sweep', {}, [])\n    store.flush()\n"
        + "    listed = store.list_conformal_results().height\n"
        + "print(json.dumps([WorkspaceStore.__module__, listed, *read(sys.argv[1])]))"
    )
    module, listed, version, run = program(script, tmp_path / "w")
    assert (module, listed, version) == ("n4a_fast.integrations.nirs4all.store_of_1x", 0, 5)
    assert run["name"] == "sweep"
    assert len(run["created_at"]) == len("2026-01-01 00:00:00")
    with WorkspaceStore.open_readonly(tmp_path / "w") as store:
        assert store.list_runs()["name"].to_list() == ["sweep"]


def test_what_nirs4all_makes_of_the_store_s_calls_is_its_own_and_signatures_are_its(program: Program) -> None:
    more = (
        "def export_chain(self, chain_id, output_path, format='n4a', relation_replay_manifest=None):\n"
        "        return f'{chain_id} of nirs4all'\n"
        "    def save_prediction(self, pipeline_id, chain_id, prediction_id=None): ..."
    )
    script = (
        ORDERS["before"]
        + "import inspect\nstore = WorkspaceStore('w')\nnames = inspect.signature(store.save_prediction).parameters\n"
        + "print(json.dumps([store.export_chain('a', 'b'), list(names)]))"
    )
    assert program(script, more=more) == ["a of nirs4all", ["pipeline_id", "chain_id", "prediction_id"]]


def test_a_folder_with_a_store_of_nirs4all_s_own_stays_with_its_class(program: Program, tmp_path: Path) -> None:
    script = (
        ORDERS["before"]
        + "import sqlite3\nfrom pathlib import Path\n(Path(sys.argv[1])).mkdir()\n"
        + "sqlite3.connect(Path(sys.argv[1]) / 'store.sqlite').close()\nfound = []\n"
        + "for store in (WorkspaceStore(sys.argv[1]), WorkspaceStore.open_readonly(sys.argv[1])):\n"
        + "    found.append(type(store).__module__)\nprint(json.dumps(found))"
    )
    assert program(script, tmp_path / "w") == [HOME, HOME]
    assert not (tmp_path / "w" / "store.duckdb").exists()


def test_everything_is_given_back(program: Program, tmp_path: Path) -> None:
    script = (
        ORDERS["after"]
        + "import pathlib, sqlite3\nn4a_fast.uninstall()\nimport nirs4all.pipeline.storage.workspace_store as home\n"
        + "print(json.dumps([home.WorkspaceStore.__module__, model_catalogue.Path is pathlib.Path,"
        + " model_catalogue.sqlite3 is sqlite3, Predictions._store_backend is home.WorkspaceStore]))"
    )
    assert program(script) == [HOME, True, True, True]


def test_a_release_of_1_x_that_was_never_tried_is_taken_if_nothing_of_it_is_new(program: Program) -> None:
    script = ORDERS["before"] + "print(json.dumps(WorkspaceStore.__module__))"
    assert program(script, version="1.3.7") == "n4a_fast.integrations.nirs4all.store_of_1x"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("def annotate(self, run_id): ...", "WorkspaceStore.annotate is new"),
        ("def get_run(self, run_id, revision): ...", "WorkspaceStore.get_run takes revision"),
    ],
)
def test_a_release_that_asks_for_more_is_refused_by_what_differs(program: Program, more: str, told: str) -> None:
    refused = program(ORDERS["before"], more=more, version="1.9.0", check=False)
    assert f"UnsupportedVersionError: nirs4all 1.9.0 is not supported: {told};" in refused


def test_a_path_of_a_reader_is_a_path_and_every_path_is_one_to_it(tmp_path: Path) -> None:
    from n4a_fast.integrations.nirs4all.readers import StorePath

    assert isinstance(StorePath(tmp_path), Path)
    assert isinstance(tmp_path, StorePath)
    assert not isinstance("text", StorePath)
    WorkspaceStore(tmp_path / "w").close()
    assert (StorePath(tmp_path) / "w" / "store.sqlite").is_file()
    assert not (StorePath(tmp_path) / "w" / "other.sqlite").exists()
    assert not (tmp_path / "w" / "store.sqlite").exists()


def test_what_nirs4all_lists_as_files_of_artifacts_is_not_what_a_save_is_writing(tmp_path: Path) -> None:
    from n4a_fast.integrations.nirs4all.readers import StorePath

    with WorkspaceStore(tmp_path / "w") as store:
        store.save_artifact([1.5], "list", "model", "joblib")
        store.list_runs()  # the artifact is in its table, and no save claims it any more
        (tmp_path / "w" / "artifacts" / ".saving" / "one.draft").touch()
        listed = [path for path in StorePath(tmp_path / "w" / "artifacts").rglob("*") if path.is_file()]
        assert [path.suffix for path in listed] == [".joblib"]
        draft = listed[0].with_name(f".{listed[0].name}.abc.tmp")
        draft.touch()
        assert draft not in set(StorePath(tmp_path / "w" / "artifacts").rglob("*"))
        os.utime(draft, (0, 0))  # its writer is long gone
        assert draft in set(StorePath(tmp_path / "w" / "artifacts").rglob("*"))
        StorePath(draft).unlink()
        assert not draft.exists()
    (tmp_path / "other" / ".saving").mkdir(parents=True)
    assert [path.name for path in StorePath(tmp_path / "other").rglob("*")] == [".saving"]


SAVER = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
store.save_artifact([1.5], "list", "model", "joblib")
print(store.save_artifact([2.5], "list", "model", "joblib"), flush=True)
input()
"""


@pytest.fixture
def orphans(tmp_path: Path) -> tuple[Path, Path]:
    """Files of two artifacts, of which the store beside them knows nothing."""
    for name in ("w", "other"):
        with WorkspaceStore(tmp_path / name) as store:
            saved = [store.save_artifact([each], "list", "model", "joblib") for each in (1.5, 2.5) if name == "other"]
            found = [store.get_artifact_path(artifact) for artifact in saved]
    shutil.copytree(tmp_path / "other" / "artifacts", tmp_path / "w" / "artifacts", dirs_exist_ok=True)
    first, second = (tmp_path / "w" / path.relative_to(tmp_path / "other") for path in found)
    return first, second


def test_nirs4all_removes_no_file_that_a_running_save_is_about_to_use(orphans: tuple[Path, Path]) -> None:
    from n4a_fast.integrations.nirs4all.readers import StorePath

    known, _ = orphans
    artifacts = StorePath(known.parents[1])
    assert set(orphans) <= set(artifacts.rglob("*"))
    saver = child(SAVER, artifacts.parent)
    read_line(saver)  # it has come to use both, and tells of them by its claims alone
    assert not [path for path in artifacts.rglob("*") if path.is_file()]
    StorePath(known).unlink()
    assert known.is_file()
    kill(saver)
    assert {path for path in artifacts.rglob("*") if path.is_file()} == set(orphans)
    StorePath(known).unlink()
    assert not known.exists()


SAVES_AND_LETS_GO = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "")
model = store.save_artifact([1.5], "list", "model", "joblib")
store.save_chain(pipeline, [], 1, "list", "", "per_fold", {"fold_0": model}, {})
store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
print(model, flush=True)
input()
"""


@pytest.mark.parametrize("ending", ["runs on", "is killed", "has ended"])
def test_nirs4all_removes_no_file_that_came_into_use_since_it_was_listed(
    orphans: tuple[Path, Path], ending: str
) -> None:
    from n4a_fast.integrations.nirs4all.readers import StorePath

    workspace = orphans[0].parents[2]
    listed = [path for path in StorePath(workspace / "artifacts").rglob("*") if path.is_file()]
    saver = child(SAVES_AND_LETS_GO, workspace)
    model = read_line(saver)  # it claimed the file, committed what uses it, and claims it no more
    if ending == "is killed":
        kill(saver)
    elif ending == "has ended":
        saver.communicate("\n", timeout=DEADLINE)
    for path in listed:
        StorePath(path).unlink()
    if ending == "runs on":
        kill(saver)
    assert [path.exists() for path in orphans] == [True, False]
    with WorkspaceStore.open_readonly(workspace) as store:
        assert store.load_artifact(model) == [1.5]
