"""A workspace whose rows and files somebody else has written by hand: typed errors, or an answer, and nothing waits."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from helpers import child, finish
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from n4a_fast import PipelineLibrary, WorkspaceStore, inspect_bundle
from n4a_fast.errors import BundleError, StoreError, StoreFormatError, UnsafePathError

X = np.random.default_rng(0).random((20, 5))
DEEP, LONG = "[" * 100_000, "1" * 5_000  # deeper than any program reads, a number of more digits than Python takes
ROWS = [
    ("stored_artifacts", "artifact_id", None),
    ("stored_artifacts", "artifact_path", None),
    ("stored_artifacts", "artifact_path", "a" * 300),
    ("stored_artifacts", "content_hash", None),
    ("stored_artifacts", "size_bytes", None),
    ("stored_artifacts", "size_bytes", -(2**62)),
    ("stored_artifacts", "libraries", DEEP),
    ("stored_artifacts", "format", None),
    *(("chains", "steps", text) for text in (None, DEEP, LONG, '{"a":', "NaN", '"x"', "[1]")),
    ("chains", "fold_artifacts", '"x"'),
    ("chains", "shared_artifacts", LONG),
    ("chains", "model_step_idx", None),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A workspace, its chain and the model of that."""
    root = tmp_path_factory.mktemp("sound")
    with WorkspaceStore(root) as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        scaler = store.save_artifact(StandardScaler().fit(X), "StandardScaler", "transformer", "joblib")
        model = store.save_artifact(Ridge().fit(X, X[:, 0]), "Ridge", "model", "joblib")
        steps = [
            {"step_idx": n, "operator_class": name, "params": {}} for n, name in ((1, "StandardScaler"), (2, "Ridge"))
        ]
        chain = store.save_chain(pipeline, steps, 2, "Ridge", "", "per_fold", {"fold_0": model}, {"1": [scaler]})
        store.complete_pipeline(pipeline, 0.3, 0.2, "rmse", 5)
    return root, chain, model


READS: list[Callable[[WorkspaceStore, str, str], Any]] = [
    lambda store, chain, _: store.get_chain(chain),
    lambda store, chain, _: store.describe_chain(chain),
    lambda store, chain, _: str(store.chain(chain)),
    lambda store, chain, _: store.replay_chains([chain], X),
    lambda store, chain, _: store.export_chain(chain, store.workspace_path / "a.n4a"),
    lambda store, _, model: store.describe_artifact(model),
    lambda store, _, model: store.shared_artifact(model),
    lambda store, _, __: store.verify_artifacts(),
    lambda store, _, __: store.verify(),
]


@pytest.mark.parametrize(("table", "column", "value"), ROWS)
def test_what_no_store_writes_is_told(
    tmp_path: Path, sound: tuple[Path, str, str], table: str, column: str, value: Any
) -> None:
    root, chain, model = sound
    shutil.copytree(root, tmp_path / "theirs")
    with duckdb.connect(str(tmp_path / "theirs" / "store.duckdb")) as made:
        if value is not None and table == "chains":  # a column of JSON takes no other text
            made.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE VARCHAR")
        made.execute(f"UPDATE {table} SET {column} = ?", [value])
    with WorkspaceStore(tmp_path / "theirs", trusted=["nothing.of.This"]) as store:
        for read in READS:
            with suppress(StoreError):
                read(store, chain, model)
        if table == "chains":
            with pytest.raises(StoreFormatError, match=chain):
                store.get_chain(chain)


OPEN = """
import sys
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
try:
    with WorkspaceStore(sys.argv[1], lock_timeout=5) as store:
        print("runs", store.list_runs().height)
except StoreError as error:
    print(type(error).__name__)
"""


@pytest.mark.not_on("windows", reason="it has no named pipes in folders")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("store.duckdb.wal", "UnsafePathError"),
        ("store.duckdb.session-01900000-0000-7000-8000-000000000000", "runs 1"),
        ("store.duckdb.log-01900000-0000-7000-8000-000000000000", ""),
    ],
)
def test_nobody_waits_for_a_pipe_in_a_workspace(
    tmp_path: Path, sound: tuple[Path, str, str], name: str, told: str
) -> None:
    shutil.copytree(sound[0], tmp_path / "theirs")
    os.mkfifo(tmp_path / "theirs" / name)
    assert finish(child(OPEN, tmp_path / "theirs"), timeout=60).startswith(told)


@pytest.mark.not_on("windows", reason="links need rights there")
def test_nothing_is_written_through_a_link_in_the_place_of_a_log(tmp_path: Path, sound: tuple[Path, str, str]) -> None:
    shutil.copytree(sound[0], tmp_path / "theirs")
    (mine := tmp_path / "mine").touch()
    (tmp_path / "theirs" / "store.duckdb.wal").symlink_to(mine)
    with pytest.raises(UnsafePathError, match="store.duckdb.wal"):
        WorkspaceStore(tmp_path / "theirs")
    assert mine.read_bytes() == b""


def test_a_number_of_thousands_of_digits_is_no_version(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.n4a", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"bundle_format_version": LONG}))
    with pytest.raises(BundleError, match="format"):
        inspect_bundle(tmp_path / "a.n4a")


@pytest.mark.parametrize("text", [DEEP, LONG, '{"steps": "\\'])
def test_a_template_that_no_program_should_read_is_told(tmp_path: Path, text: str) -> None:
    library = PipelineLibrary(tmp_path)
    folder = Path(library.save_template({"steps": []}, "t"))
    (folder / "pipeline.json").write_text(text)
    with pytest.raises(StoreFormatError):
        library.load_template("t")
    (folder / "metadata.json").write_text(text)
    with pytest.warns(UserWarning, match="left out"):
        assert library.list_templates() == []
