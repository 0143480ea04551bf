"""What `verify` says of the indexes of keys, and that a file without them is read and written rightly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from helpers import begin_sweep, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.durable.duckdb_file import DuckDBFile
from n4a_fast.errors import DamagedStoreError
from n4a_fast.maintenance import verify_indexes
from n4a_fast.schema.ddl import INDEXED

# some of the rows that the index knows, and one that it should not know
MISSES = verify_indexes._BY_INDEX.replace("rowid AS place", "(rowid + 1) AS place")
INDEXES = "SELECT table_name, expressions FROM duckdb_indexes() ORDER BY 1"
THERE = [(table, "[id_key]") for table in sorted(INDEXED)]


BLOCKS_OF = "SELECT DISTINCT block_id FROM pragma_storage_info('{}') WHERE persistent AND block_id >= 0"


def damage(folder: Path, table: str | None = None) -> set[int]:
    """Damage the blocks of a table, or of all indexes, which no table has; which they are."""
    path = folder / "store.duckdb"
    content = path.read_bytes()
    file = DuckDBFile(lambda offset, length: content[offset : offset + length])
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        stored = {
            name: {block for (block,) in connection.execute(BLOCKS_OF.format(name)).fetchall()} for name in tables
        }
    others = set(range(file.active.blocks)) - file.blocks().free - file.blocks().metadata.keys()
    damaged = stored[table] if table else others.difference(*stored.values())
    with open(path, "r+b") as opened:
        for block in damaged:
            opened.seek(file.place_of(block) + 1000)
            opened.write(b"damage")
    return damaged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with WorkspaceStore(tmp_path / "w") as store:
        sweep = begin_sweep(store)
        for fold in range(30):
            predict_with_arrays(
                store, sweep, fold, fold_id=str(fold), prediction_id=f"own-{fold}" if fold % 2 else None
            )
    return tmp_path / "w"


@pytest.fixture
def without(folder: Path) -> Path:
    """The workspace as it was made before there were indexes."""
    with duckdb.connect(str(folder / "store.duckdb")) as connection:
        for table in INDEXED:
            connection.execute(f"DROP INDEX {table}_by_id")
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(folder) as store:
        yield store


@pytest.mark.parametrize("table", INDEXED)
def test_rows_are_looked_up_by_the_index_and_compared_with_the_table(opened: WorkspaceStore, table: str) -> None:
    database = opened._open().database
    ((low, _),) = database.rows(verify_indexes._BOUNDS.format(table=table, share=0.5))
    with database.looking_up(1, 2**40):
        plans = [
            database.rows(f"EXPLAIN ANALYZE {sql.format(table=table, side=f'<= {low}')}")[0][1]
            for sql in (verify_indexes._BY_INDEX, verify_indexes._IN_TABLE)
        ]
    assert ["Index Scan" in plan for plan in plans] == [True, False]


@pytest.mark.parametrize("at_once", [3, 2**19])
def test_a_sound_index_has_no_finding(opened: WorkspaceStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(verify_indexes, "_AT_ONCE", at_once)
    assert opened.verify().findings == []


def test_a_wrong_index_is_found_and_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkspaceStore(folder) as store, monkeypatch.context() as patch:
        patch.setattr(verify_indexes, "_BY_INDEX", MISSES)
        report = store.verify(repair=True)
    assert {(finding.kind, finding.id) for finding in report.findings} == {
        ("wrong index", f"{table} id_key") for table in INDEXED
    }
    assert all(finding.is_repaired for finding in report.findings)
    with WorkspaceStore(folder) as store:
        assert store.verify().findings == []
        assert store.get_prediction("own-3", load_arrays=True) is not None
    with duckdb.connect(str(folder / "store.duckdb"), read_only=True) as connection:
        assert connection.execute(INDEXES).fetchall() == THERE


def test_a_missing_index_is_told_as_no_damage_and_made(without: Path) -> None:
    with WorkspaceStore(without) as store:
        report = store.verify(quick=True)
        assert {finding.kind for finding in report.findings} == {"missing index"}
        assert report.is_sound
        assert store.verify(quick=True, repair=True).is_sound
        assert store.verify().findings == []
    with duckdb.connect(str(without / "store.duckdb"), read_only=True) as connection:
        assert connection.execute(INDEXES).fetchall() == THERE


def test_an_index_of_something_else_under_the_name_is_replaced(without: Path) -> None:
    with duckdb.connect(str(without / "store.duckdb")) as connection:
        connection.execute("CREATE INDEX predictions_by_id ON predictions (nk)")
    with WorkspaceStore(without) as store:
        assert store.verify(repair=True).is_sound
    with duckdb.connect(str(without / "store.duckdb"), read_only=True) as connection:
        assert connection.execute(INDEXES).fetchall() == THERE


def test_a_file_without_indexes_is_read_and_written_rightly(without: Path) -> None:
    with WorkspaceStore.open_readonly(without) as reader:
        ids = reader.query_predictions()["prediction_id"].to_list()[::-1]
        assert [reader.get_prediction(each, load_arrays=True)["y_pred"][0] for each in ids] == list(range(30))  # type: ignore[index]
    with WorkspaceStore(without) as store:
        loaded = store.load_arrays(ids[::-1], columns=["y_pred"])
        assert [array[0] for array in loaded.y_pred] == list(range(29, -1, -1))
        assert store.top_predictions(3).height == 3
        assert store.delete_prediction(ids[3])
        assert store.get_prediction(ids[3]) is None
        sweep = begin_sweep(store)
        moved = predict_with_arrays(store, sweep, 7.0, fold_id="moved", prediction_id="own-5")
        found = store.get_prediction(moved, load_arrays=True)
        assert found is not None
        assert found["fold_id"] == "moved"
        assert np.array_equal(found["y_pred"], np.arange(5.0) + 7.0)
        store.vacuum()
        assert store.query_predictions().height == 29
        assert store.verify().is_sound


@pytest.mark.parametrize("saved", [False, True])
def test_a_damaged_index_is_told_and_made_anew_and_what_waits_in_the_log_is_not_lost(folder: Path, saved: bool) -> None:
    damaged = damage(folder)
    assert damaged
    with WorkspaceStore(folder) as store:
        if saved:
            sweep = begin_sweep(store)
            new = predict_with_arrays(store, sweep, 7.0)
            store.flush()
        with pytest.raises(DamagedStoreError, match="n4a-fast verify"):
            store.get_prediction("own-3")
        kinds = {("wrong index", f"{table} id_key") for table in INDEXED}
        kinds |= {("damaged block", str(block)) for block in damaged}
        kinds |= {("waiting rows", "store.duckdb")} if saved else set()
        found = store.verify()
        assert {(finding.kind, finding.id) for finding in found.findings} == kinds
        assert not found.is_sound
        report = store.verify(repair=True)
        assert {(finding.kind, finding.id) for finding in report.findings} == kinds
        assert all(finding.is_repaired for finding in report.findings)
        assert store.verify().findings == []
        assert store.query_predictions().height == 30 + saved
        if saved:
            assert store.get_prediction(new, load_arrays=True)["y_pred"][0] == 7.0  # type: ignore[index]
    with WorkspaceStore(folder) as store:
        assert store.get_prediction("own-3", load_arrays=True)["y_pred"][0] == 3.0  # type: ignore[index]


@pytest.mark.parametrize("table", ["cached_chain_scores", "cached_chain_summaries"])
def test_damaged_scores_that_were_computed_are_computed_again(folder: Path, table: str) -> None:
    with WorkspaceStore(folder) as store:
        (run,) = store.list_runs()["run_id"]
        store.complete_run(run, {})
        before = store.query_chain_summaries()
    assert damage(folder, table)
    with WorkspaceStore(folder) as store:
        report = store.verify(repair=True)
        assert {finding.kind for finding in report.findings} == {"damaged block", "damaged store"}
        assert all(finding.is_repaired for finding in report.findings)
        assert store.verify().findings == []
        assert store.query_chain_summaries().equals(before)


def test_damaged_rows_are_told_and_stay_as_they_are(folder: Path) -> None:
    assert damage(folder, "predictions")
    with WorkspaceStore(folder) as store:
        report = store.verify(repair=True)
        assert not any(finding.is_repaired for finding in report.findings)
        assert {finding.kind for finding in report.findings} == {"damaged block", "damaged store"}
        with pytest.raises(DamagedStoreError):
            store.query_predictions()
