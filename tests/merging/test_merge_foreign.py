"""Workspaces of nirs4all as sources of a merge: taken whole, once, with the files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import NEW, OLD, unpacked
from helpers import begin_sweep, predict

from n4a_fast import WorkspaceStore
from n4a_fast.integrations.workspaces import convert


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder but those that stand for a lock on Windows."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("name", [NEW, OLD])
@pytest.mark.long
def test_a_workspace_of_nirs4all_is_merged_once_and_left_as_it_was(
    store: WorkspaceStore, tmp_path: Path, name: str
) -> None:
    source = unpacked(name, tmp_path)
    before = contents(source)
    sweep = begin_sweep(store)
    predict(store, sweep.pipeline, sweep.chain)
    first, second = store.merge(source), store.merge(source)
    added = {table.table: table.added for table in first.tables}
    assert added["predictions"] == 47
    assert all(table.added == 0 for table in second.tables)
    assert store.query_predictions().height == 48
    assert contents(source) == before
    assert not [path for path in store.workspace_path.iterdir() if path.name.startswith(".n4a_fast-merge")]


@pytest.mark.long
def test_what_is_merged_is_what_a_conversion_gives(store: WorkspaceStore, tmp_path: Path) -> None:
    source = unpacked(NEW, tmp_path)
    store.merge(source)
    convert(source, tmp_path / "converted")
    with WorkspaceStore(tmp_path / "converted") as converted:
        ids = sorted(converted.query_predictions()["prediction_id"].to_list())
        assert sorted(store.query_predictions()["prediction_id"].to_list()) == ids
        for mine, theirs in zip(store.load_arrays(ids).y_pred, converted.load_arrays(ids).y_pred, strict=True):
            assert mine.tolist() == theirs.tolist()
        chains = converted.query_chain_summaries()["chain_id"].to_list()
        assert [store.get_chain(chain) for chain in chains] == [converted.get_chain(chain) for chain in chains]
