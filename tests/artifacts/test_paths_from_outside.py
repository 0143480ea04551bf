"""What a row says of its file leads nowhere else: not when it is read or described, and not when it is removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError

# how a stranger's row names a file beside the workspace
WAYS: dict[str, Callable[[Path], str]] = {
    "upwards": lambda precious: f"../../{precious.name}",
    "upwards from a folder": lambda precious: f"ab/../../../{precious.name}",
    "from the root": str,
    "over a linked folder": lambda precious: f"link/{precious.name}",
}


def with_path(root: Path, path: str, precious: Path) -> None:
    """A workspace with one artifact that nothing refers to, whose row says this path."""
    with WorkspaceStore(root) as store:
        store.save_artifact({"a": 1}, "dict", "model", "joblib")
    (root / "artifacts" / "ab").mkdir(exist_ok=True)
    (root / "artifacts" / "link").symlink_to(precious.parent, target_is_directory=True)
    with duckdb.connect(str(root / "store.duckdb")) as made:
        made.execute("UPDATE stored_artifacts SET artifact_path = ?, artifact_id = 'theirs'", [path])


@pytest.mark.parametrize("trusted", ["none", "workspace"])
@pytest.mark.parametrize("way", WAYS)
def test_no_row_leads_out_of_the_folder(tmp_path: Path, way: str, trusted: str) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    with_path(tmp_path / "workspace", WAYS[way](precious), precious)
    with WorkspaceStore(tmp_path / "workspace", trusted=trusted) as store:
        pipeline = store.begin_pipeline(run := store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        store.complete_pipeline(pipeline, 0.0, 0.0, "rmse", 0)
        calls: tuple[Callable[[], Any], ...] = (
            lambda: store.load_artifact("theirs"),
            lambda: store.describe_artifact("theirs"),
            lambda: store.get_artifact_path("theirs"),
            store.verify,
            lambda: store.verify(repair=True),
            lambda: store.delete_run(run),
            store.gc_artifacts,
            store.vacuum,
        )
        for call in calls:
            with suppress(StoreError):
                call()
        assert store.sql("SELECT count(*) FROM artifacts").item() == 0  # collected, and nothing with it
    assert precious.read_bytes() == b"precious"


@pytest.mark.parametrize("column", ["artifact_path", "content_hash"])
def test_a_row_that_lacks_what_it_must_say_is_told(tmp_path: Path, column: str) -> None:
    with WorkspaceStore(tmp_path) as store:
        saved = store.save_artifact({"a": 1}, "dict", "model", "joblib")
    with duckdb.connect(str(tmp_path / "store.duckdb")) as made:
        made.execute(f"UPDATE stored_artifacts SET {column} = NULL")
    with WorkspaceStore(tmp_path) as store:
        for call in (store.load_artifact, store.describe_artifact):
            with pytest.raises(StoreError):
                call(saved)
        store.gc_artifacts()
