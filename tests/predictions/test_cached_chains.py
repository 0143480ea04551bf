"""Cached scores and summaries of chains are what the definitions give, whatever happened to the predictions before."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from helpers import Sweep, begin_sweep, child, examples, finish, kill, predict, read_line, save_chain
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
from n4a_fast.schema.chain_scores import BOOKKEEPING, scores_of, summaries_of
from n4a_fast.tables import stale_chains

DEFINED = {"scores": scores_of("FROM predictions"), "summaries": summaries_of("FROM predictions")}
VIEWS = {"scores": "chain_scores", "summaries": "v_chain_summary"}


def rows_of(store: WorkspaceStore, source: str) -> list[dict[str, Any]]:
    """All rows in one order, without what is known of where a chain's predictions are."""
    rows = store._open().database.arrow(source).to_pylist()
    rows.sort(key=lambda row: (row["chain_id"], row["dataset_name"], row["metric"] or ""))
    return [{name: row[name] for name in row.keys() - set(BOOKKEEPING.split(", "))} for row in rows]


def require_equal(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Rows are the same; numbers within what the order of a sum changes."""
    assert len(found) == len(wanted)
    for row, expected in zip(found, wanted, strict=True):
        assert row == {
            name: pytest.approx(value, nan_ok=True) if isinstance(value, float) else value
            for name, value in expected.items()
        }


def check(store: WorkspaceStore, *, is_fresh: bool = False) -> None:
    """Views give what the definitions give; after a refresh the cached rows do, and no chain is stale."""
    store.flush()
    for kind, definition in DEFINED.items():
        wanted = rows_of(store, definition)
        require_equal(rows_of(store, f"FROM {VIEWS[kind]}"), wanted)
        if is_fresh:
            require_equal(rows_of(store, f"FROM cached_chain_{kind}"), wanted)
    if is_fresh:
        assert store._open().database.rows("FROM stale_chains") == []
    check_places(store)


def check_places(store: WorkspaceStore) -> None:
    """All predictions of a chain, and of several, lie where they are looked for."""
    database = store._open().database
    rows = database.rows("SELECT prediction_id, chain_id FROM predictions WHERE chain_id IS NOT NULL")
    chains = sorted({chain for _, chain in rows})
    for those in (chains, *([chain] for chain in chains)):
        sql = f"SELECT prediction_id FROM predictions WHERE {stale_chains.ranges_of(database, those)}"
        found = {name for (name,) in database.rows(sql)}
        assert found >= {name for name, chain in rows if chain in those}
    for chain in chains[:2]:
        found = set(store.get_chain_predictions(chain)["prediction_id"])
        assert found == {name for name, other in rows if other == chain}


def test_a_chain_is_looked_for_where_its_own_predictions_are(store: WorkspaceStore) -> None:
    sweeps = []
    for place in range(4):
        time.sleep(0.02)  # a millisecond of its own for each pipeline
        sweeps.append(begin_sweep(store))
        for fold in range(3):
            predict(store, sweeps[place].pipeline, sweeps[place].chain, fold_id=str(fold), val_score=fold / 10)
    database = store._open().database
    for is_fresh in (False, True):
        if is_fresh:
            store.leaderboard()
            predict(store, sweeps[1].pipeline, sweeps[1].chain, fold_id="3", val_score=0.5)
        store.flush()
        for sweep in sweeps:
            rows = f"SELECT chain_id FROM predictions WHERE {stale_chains.ranges_of(database, [sweep.chain])}"
            own = 3 + (is_fresh and sweep is sweeps[1])
            assert database.rows(rows) == [(sweep.chain,)] * own
            assert store.get_chain_predictions(sweep.chain).height == own
            assert len(store.load_arrays(chain_id=sweep.chain)) == own
    assert stale_chains.ranges_of(database, []) == stale_chains.ranges_of(database, ["unknown"]) == "false"
    assert store.get_chain_predictions("unknown").height == 0


# for each line a process of its own, which ends well or is killed at the worst moment
OTHERS = """
import json, os, signal, sys, traceback
from helpers import predict
from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def act(path, pipeline, chain, value, end):
    store = WorkspaceStore(path)
    predict(store, pipeline, chain, fold_id="20", val_score=value)
    if end == "logged":
        store.flush()
        die()
    if end == "in a unit":
        with store.transaction():
            predict(store, pipeline, chain, fold_id="21", val_score=value)
            store.query_chain_summaries()
            store.delete_chain(chain)
            die()
    store.leaderboard()
    store.close()

for line in sys.stdin:
    path, pipeline, chain, value, end = json.loads(line)
    process = os.fork()
    if not process:
        code = 1
        try:
            act(path, pipeline, chain, value, end)
            code = 0
        except NotFoundError:  # the chain is deleted
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    print(os.waitpid(process, 0)[1])
"""


@pytest.fixture(scope="module")
def others() -> Iterator[subprocess.Popen[str]]:
    """Runs other processes on a workspace, one for each line."""
    process = child(OTHERS)
    yield process
    kill(process)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh commits after every few predictions, where it takes 260,000 at once."""
    monkeypatch.setattr(stale_chains, "_PREDICTIONS_AT_ONCE", 3)


@pytest.mark.long
def test_many_pieces_give_what_one_gives(store: WorkspaceStore, small_pieces: None) -> None:
    sweeps = [begin_sweep(store) for _ in range(5)]
    for fold in range(4):  # the predictions of all chains lie in between each other
        for place, sweep in enumerate(sweeps):
            predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=place + fold / 10)
    store.leaderboard()
    check(store, is_fresh=True)
    with store.transaction():
        predict(store, sweeps[2].pipeline, sweeps[2].chain, fold_id="0", val_score=9.0)
        store.delete_chain(sweeps[0].chain)
        assert store.query_chain_summaries().height == 4
    for sweep in sweeps:  # chains that are noted one by one
        store.complete_pipeline(sweep.pipeline, None, None, None, None)
    assert store.leaderboard().frame["chain_id"][0] == sweeps[1].chain
    check(store, is_fresh=True)


class Workspace:
    """What the steps of an example act on: few runs, pipelines, chains and predictions, so that they meet again."""

    def __init__(self, store: WorkspaceStore, beside: Path, others: subprocess.Popen[str]) -> None:
        self.store, self.beside, self._others = store, beside, others
        self.pipelines: list[str] = []
        self.chains: list[tuple[str, str]] = []
        self.predictions: list[str] = []
        self.begin(0, 0.0)

    def begin(self, place: int, value: float) -> None:
        sweep = begin_sweep(self.store, f"d{place % 2}")
        self.pipelines.append(sweep.pipeline)
        folds = {f"fold_{fold}": f"a{fold}" for fold in range(place % 3)}
        self.chains += [
            (sweep.pipeline, sweep.chain),
            (sweep.pipeline, save_chain(self.store, sweep.pipeline, fold_artifacts=folds)),
        ]

    def save(self, place: int, value: float) -> None:
        pipeline, chain = self.chains[place % len(self.chains)]
        refit = {"refit_context": "standalone", "fold_id": "final", "partition": "test"} if place % 7 == 0 else {}
        given = {
            "fold_id": ("0", "1", "2", "avg", "10", "0_agg")[place % 6],
            "partition": ("val", "test", "train")[place % 3],
            "val_score": value,
            "test_score": -value,
            "metric": ("rmse", "r2")[place % 11 == 0],
            "dataset_name": ("d0", "d1")[place % 5 == 0],
            "scores": {"val": {"rmse": value, "r2": 0.5}},
            **refit,
        }
        self.predictions.append(predict(self.store, pipeline, chain, **given))

    def save_under_a_known_id(self, place: int, value: float) -> None:
        if self.predictions:
            pipeline, chain = self.chains[(place * 3 + 1) % len(self.chains)]
            known = self.predictions[place % len(self.predictions)]
            predict(self.store, pipeline, chain, val_score=value, prediction_id=known)

    def save_many(self, place: int, value: float) -> None:
        chains = [self.chains[(place + each) % len(self.chains)] for each in range(8)]
        columns = {
            "pipeline_id": [pipeline for pipeline, _ in chains],
            "chain_id": [chain if place % 5 else None for _, chain in chains],
            "dataset_name": "d0",
            "model_name": "PLS",
            "model_class": "PLS",
            "fold_id": [str(each) for each in range(8)],
            "partition": "val",
            "val_score": value,
            "metric": "rmse",
        }
        self.predictions += self.store.save_predictions(columns)

    def complete(self, place: int, value: float) -> None:
        self.store.complete_pipeline(self.pipelines[place % len(self.pipelines)], value, value, "rmse", 1)

    def fail(self, place: int, value: float) -> None:
        self.store.fail_pipeline(self.pipelines[place % len(self.pipelines)], "no")

    def delete_prediction(self, place: int, value: float) -> None:
        if self.predictions:
            self.store.delete_prediction(self.predictions[place % len(self.predictions)])

    def delete_chain(self, place: int, value: float) -> None:
        self.store.delete_chain(self.chains[place % len(self.chains)][1])

    def delete_run(self, place: int, value: float) -> None:
        runs = self.store.list_runs()["run_id"].to_list()
        if len(runs) > 1:
            self.store.delete_run(runs[place % len(runs)])

    def delete_dataset(self, place: int, value: float) -> None:
        self.store.delete_dataset_predictions(f"d{place % 2}", dry_run=place % 3 == 0)

    def roll_back(self, place: int, value: float) -> None:
        with pytest.raises(ZeroDivisionError), self.store.transaction():
            self.save(place, value)
            if place % 2:
                self.store.query_chain_summaries()
                self.delete_prediction(place, value)
            raise ZeroDivisionError

    def merge(self, place: int, value: float) -> None:
        with WorkspaceStore(self.beside) as other:
            Workspace(other, self.beside, self._others).save(place, value)
        self.store.merge(self.beside)

    def act_elsewhere(self, place: int, value: float) -> None:
        pipeline, chain = self.chains[place % len(self.chains)]
        end = ("well", "logged", "in a unit")[place % 3]
        self.store.flush()
        given = [str(self.store.workspace_path), pipeline, chain, value, end]
        assert self._others.stdin is not None
        self._others.stdin.write(f"{json.dumps(given)}\n")
        self._others.stdin.flush()
        status = int(read_line(self._others))
        assert status in ((0,) if end == "well" else (0, signal.SIGKILL))

    def direct(self, place: int, value: float) -> None:
        self.store.set_metric_direction("rmse", higher_is_better=bool(place % 2))

    def look(self, place: int, value: float) -> None:
        self.store.leaderboard("rmse")

    def reopen(self, place: int, value: float) -> None:
        path = self.store.workspace_path
        self.store.close()
        with WorkspaceStore.open_readonly(path) as reader:
            check(reader)
            found = reader.leaderboard().frame, reader.query_chain_summaries()
        self.store = WorkspaceStore(path)
        assert_frame_equal(found[0], self.store.leaderboard().frame)
        assert_frame_equal(found[1], self.store.query_chain_summaries())


STEPS = [name for name in vars(Workspace) if not name.startswith("_")]
if not hasattr(os, "fork"):
    STEPS.remove("act_elsewhere")
VALUES = st.sampled_from([0.1, 0.25, 1.0, 3.0, math.nan, math.inf])
STEP = st.tuples(st.sampled_from([*STEPS, "save", "save", "save"]), st.integers(0, 40), VALUES)


@pytest.mark.not_on("macos", reason="a fork after the first use of Polars is told to be none")
@pytest.mark.long
@settings(max_examples=examples(8))
@given(steps=st.lists(STEP, max_size=12))
@example(steps=[("save", 1, 0.1), *(("act_elsewhere", place, 0.25) for place in range(3)), ("look", 0, 0.0)])
def test_whatever_happens_cached_rows_are_those_of_the_definitions(
    tmp_path_factory: pytest.TempPathFactory,
    others: subprocess.Popen[str],
    steps: list[tuple[str, int, float]],
) -> None:
    folder = tmp_path_factory.mktemp("cached")
    workspace = Workspace(WorkspaceStore(folder / "a"), folder / "b", others)
    for name, place, value in steps:
        try:
            getattr(workspace, name)(place, value)
        except StoreError:  # of what is not there any more; nothing has changed then
            pass
        check(workspace.store)
    workspace.store.query_chain_summaries()
    check(workspace.store, is_fresh=True)
    workspace.store.close()


WRITER = """
import sys
from helpers import Sweep, begin_sweep, child, kill, predict, read_line, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
for fold in range(3):
    predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=fold / 10)
store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
print(sweep.chain)
input()
predict(store, sweep.pipeline, sweep.chain, fold_id="3", val_score=9.0)
store.flush()
print("saved")
input()
"""


def test_another_process_and_one_that_is_killed_leave_no_outdated_score(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        writer = child(WRITER, tmp_path)
        chain = read_line(writer)
        assert store.leaderboard().frame.select("chain_id", "folds").rows() == [(chain, 3)]
        check(store, is_fresh=True)
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert read_line(writer) == "saved"
        kill(writer)
        assert store.query_chain_summaries()["cv_fold_count"].to_list() == [4]
        check(store, is_fresh=True)


FULL_DISK = """
import resource, sys
from helpers import begin_sweep, predict
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
for fold in range(3):
    predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=float(fold))
store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
store.list_runs()  # what was saved is in the tables from here on
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
for limit in (256, hard):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    found = store.leaderboard("rmse").frame, store.query_chain_summaries()
    stale = store.sql("SELECT count(*) AS n FROM stale_chains")["n"][0] > 0
    print(stale, *found[0].select("folds", "val_score").row(0), *found[1].select("cv_fold_count").row(0))
store.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_does_not_keep_anybody_from_reading(tmp_path: Path) -> None:
    assert finish(child(FULL_DISK, tmp_path)).splitlines() == ["True 3 1.0 3", "False 3 1.0 3"]
    with WorkspaceStore(tmp_path) as store:
        check(store, is_fresh=True)


def test_a_closed_store_of_some_size_leaves_nothing_for_readers_to_compute(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        columns = {"dataset_name": "d", "model_name": "m", "model_class": "PLS", "partition": "val", "metric": "rmse"}
        given = {"pipeline_id": sweep.pipeline, "chain_id": sweep.chain, "fold_id": [str(each) for each in range(2000)]}
        store.save_predictions({**columns, **given, "val_score": 0.5})
    with WorkspaceStore.open_readonly(tmp_path) as reader:
        check(reader, is_fresh=True)


@pytest.mark.long
def test_a_reader_who_may_not_write_computes_many_stale_chains_piece_by_piece_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkspaceStore(tmp_path) as store:
        for place in range(6):
            sweep = begin_sweep(store)
            for fold in range(3):
                predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=0.1 * (place % 4) + fold)
            store.complete_pipeline(sweep.pipeline, None, None, None, None)
            if place == 2:
                store.leaderboard()  # the rows of three are cached, those of the others stale
    with WorkspaceStore.open_readonly(tmp_path) as reader:
        expected = [reader.leaderboard(n=n, all_scores=True) for n in (None, 2)]
    monkeypatch.setattr(stale_chains, "_PREDICTIONS_AT_ONCE", 3)
    monkeypatch.setattr(stale_chains, "_PREDICTIONS_AT_REST", 0)
    asked: list[int] = []
    pieces = stale_chains._pieces

    def counted(stale: pa.Table, memory: int) -> list[pa.Table]:
        found = list(pieces(stale, memory))
        asked.append(len(found))
        return found

    monkeypatch.setattr(stale_chains, "_pieces", counted)
    with WorkspaceStore.open_readonly(tmp_path) as reader:
        for n, before in zip((None, 2), expected, strict=True):
            found = reader.leaderboard(n=n, all_scores=True)
            assert_frame_equal(found.frame, before.frame)
            assert_frame_equal(found.scores, before.scores, check_row_order=False)
        assert reader.leaderboard(where="folds = 3").frame.height == len(expected[0])
    assert len(asked) == 1
    assert asked[0] > 1


@pytest.mark.parametrize(
    "damage",
    some(
        [
            "UPDATE cached_chain_scores SET val_score = val_score + 1e-6",
            "UPDATE cached_chain_summaries SET cv_scores = NULL",
            "DELETE FROM cached_chain_scores",
            "UPDATE cached_chain_summaries SET last_nk = last_nk - 1",
            "INSERT INTO cached_chain_scores BY NAME SELECT * REPLACE ('mae' AS metric) FROM cached_chain_scores",
        ],
        2,
    ),
)
def test_verify_finds_cached_rows_that_are_wrong_and_has_them_computed_again(
    store: WorkspaceStore, sweep: Sweep, damage: str
) -> None:
    for fold in range(3):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold))
    store.query_chain_summaries()
    assert store.verify().findings == []
    database = store._open().database
    with database.transaction():
        database.execute(damage)
    (finding,) = store.verify(repair=True).findings
    assert (finding.kind, finding.id, finding.is_repaired) == ("wrong score", f"chains {sweep.chain}", True)
    assert store.verify().findings == []
    store.leaderboard()
    check(store, is_fresh=True)


SCORED = st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.30000000000000004, math.nan, math.inf]), max_size=12)


@pytest.mark.long
@settings(max_examples=examples(10))
@given(SCORED, st.integers(1, 6), st.booleans())
def test_the_first_of_a_board_are_the_first_of_the_whole_board(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], n: int, upward: bool
) -> None:
    with WorkspaceStore(tmp_path_factory.mktemp("board")) as store:
        for place, score in enumerate(scores):
            sweep = begin_sweep(store, f"d'{place % 2}")
            given = {"dataset_name": f"d'{place % 2}", "metric": ("rmse", "mae")[place % 3 == 0], "val_score": score}
            predict(store, sweep.pipeline, sweep.chain, **given)
            store.complete_pipeline(sweep.pipeline, None, None, None, None)
        whole = store.leaderboard(n=None, higher_is_better=upward)
        first = store.leaderboard(n=n, higher_is_better=upward)
        assert_frame_equal(first.frame, whole.frame.filter(pl.col("rank") <= n))
        assert [board.chains for board in first.boards] == [board.chains for board in whole.boards]
        chains = store.query_top_chains(None, n=100, ascending=not upward)
        for offset in range(0, len(scores) + 1, n):
            page = store.query_top_chains(None, n=n, offset=offset, ascending=not upward)
            assert_frame_equal(page, chains.slice(offset, n))


def test_a_board_counts_what_is_there_at_each_call(store: WorkspaceStore, sweep: Sweep) -> None:
    def counted() -> tuple[int, int, int]:
        (board,) = store.leaderboard(include_running=True).boards
        return board.chains, board.finished, board.running

    predict(store, sweep.pipeline, sweep.chain)
    assert counted() == counted() == (1, 0, 1)
    other = begin_sweep(store)
    predict(store, other.pipeline, other.chain)
    assert counted() == (2, 0, 2)
    with store.transaction():
        store.complete_pipeline(sweep.pipeline, None, None, None, None)
        assert counted() == (2, 1, 1)
        store.complete_pipeline(other.pipeline, None, None, None, None)
    assert counted() == (2, 2, 0)
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.delete_run(other.run)
        assert counted() == (1, 1, 0)
        raise ZeroDivisionError
    assert counted() == (2, 2, 0)


def test_bulk_predictions_without_a_chain_leave_nothing_to_compute(store: WorkspaceStore, sweep: Sweep) -> None:
    """Each ranking would find them stale, and compute them, again."""
    columns = {"dataset_name": "corn", "model_name": "PLS", "model_class": "PLS", "partition": "val", "metric": "rmse"}
    folds = [str(fold) for fold in range(2_000)]
    store.save_predictions({**columns, "pipeline_id": sweep.pipeline, "fold_id": folds, "val_score": 0.5})
    assert store._open().database.rows("FROM stale_chains WHERE chain_id IS NULL") == []
    store.leaderboard()
    check(store, is_fresh=True)


_NOTED = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 2**64 - 1)), min_size=1, max_size=12)


@given(_NOTED, st.sampled_from(["plain", "mask", "encode"]), st.integers(1, 12))
def test_where_the_predictions_of_chains_are_is_what_grouping_gives(
    rows: list[tuple[str | None, int]], form: str, width: int
) -> None:
    names = pa.chunked_array(
        [pa.array([name for name, _ in rows[at : at + width]], pa.string()) for at in range(0, len(rows), width)]
    )
    nk = pa.chunked_array([pa.array([key for _, key in rows], pa.uint64())])
    given = names if form == "plain" else names.dictionary_encode(form)  # no chain: no code, or one of its own
    found = stale_chains.places_by_chain(given, nk.to_numpy())
    wanted = pa.table({"chain_id": names, "nk": nk}).group_by("chain_id")
    grouped = wanted.aggregate([("nk", "min"), ("nk", "max"), ("nk", "count")]).to_pylist()
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == sorted(
        (row["chain_id"], row["nk_min"], row["nk_max"], row["nk_count"]) for row in grouped if row["chain_id"]
    )
    assert found.schema.names == ["chain_id", "first_nk", "last_nk", "predictions"]
