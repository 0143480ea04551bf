"""Arrays read many at once are those of each prediction, in the order asked for, as views; questions about pipelines
leave nothing out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    examples,
    finish,
    plain_rows,
    predict,
    predict_with_arrays,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.errors import DamagedStoreError, InvalidInputError, NotFoundError
from n4a_fast.predictions.loaded import LoadedArrays
from n4a_fast.predictions.queries import where_clause, where_on_predictions
from n4a_fast.predictions.reading import COLUMNS
from n4a_fast.tables.predictions import prediction_tables
from n4a_fast.tables.predictions.shared import SharedContents
from n4a_fast.values import ids

Arrays = dict[str, np.ndarray[Any, Any] | None]
RUNS = count()


@st.composite
def arrays_of_one(draw: st.DrawFn) -> Arrays | None:
    """Arrays of one prediction in any shape they may have, few distinct; None: never saved."""
    if draw(st.integers(0, 4)) == 0:
        return None
    rows, targets = draw(st.integers(0, 3)), draw(st.sampled_from([(), (2,)]))
    number = draw(st.integers(0, 2))
    candidates: Arrays = {
        "y_true": np.full((rows, *targets), float(number)),
        "y_pred": np.arange(rows * 2.0)[: rows * (2 if targets else 1)].reshape(rows, *targets),
        "y_proba": np.full((rows, number + 1), 0.5),
        "sample_indices": np.arange(rows) + number,
        "weights": np.full(number, 0.25),
    }
    return {name: draw(st.sampled_from([value, None])) for name, value in candidates.items()}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, Sweep]]:
    with WorkspaceStore(tmp_path_factory.mktemp("reading")) as store:
        yield store, begin_sweep(store)


@pytest.mark.long
@settings(max_examples=examples(40))
@given(st.lists(arrays_of_one(), min_size=1, max_size=8), st.data())
def test_many_arrays_are_those_of_each(
    workspace: tuple[WorkspaceStore, Sweep], given_arrays: list[Arrays | None], data: st.DataObject
) -> None:
    store, sweep = workspace
    model, saved = f"m{next(RUNS)}", []
    for fold, arrays in enumerate(given_arrays):
        saved.append(predict(store, sweep.pipeline, sweep.chain, model_name=model, fold_id=str(fold)))
        if arrays is not None:
            store.save_prediction_arrays(saved[-1], **arrays)
    places = data.draw(st.lists(st.integers(0, len(saved) - 1), max_size=12))
    size = data.draw(st.integers(1, 5))
    asked = [saved[place] for place in places]
    whole, pieces = (
        store.load_arrays(asked, columns=COLUMNS),
        list(store.iter_arrays(asked, columns=COLUMNS, batch_size=size)),
    )
    assert whole.prediction_ids == asked == [prediction for piece in pieces for prediction in piece.prediction_ids]
    assert [len(piece) for piece in pieces] == [min(size, len(asked) - start) for start in range(0, len(asked), size)]
    table_of_all = whole.to_arrow()
    for name in COLUMNS:
        expected = [(given_arrays[place] or {}).get(name) for place in places]
        one_by_one = [(store.get_prediction_arrays(prediction) or {}).get(name) for prediction in asked]
        flat = [None if value is None else np.array(value) for value in table_of_all[name].to_pylist()]
        for found in (
            list(getattr(whole, name)),
            getattr(whole, name)[:],
            [value for piece in pieces for value in getattr(piece, name)],
            one_by_one,
        ):
            _assert_same(found, expected)
        _assert_same(flat, [None if value is None else value.reshape(-1) for value in expected])


def _assert_same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert [value is None for value in found] == [value is None for value in expected]
    for value, wanted in zip(found, expected, strict=True):
        if wanted is not None:
            assert value.shape == wanted.shape
            np.testing.assert_array_equal(value, wanted)


def test_what_is_loaded_are_views_of_one_buffer_that_cannot_be_written(store: WorkspaceStore, sweep: Sweep) -> None:
    ids_of_all = [predict_with_arrays(store, sweep, float(fold), fold_id=str(fold)) for fold in range(4)]
    loaded: LoadedArrays = store.load_arrays(ids_of_all)
    matrix = loaded.y_pred_2d()
    assert all(np.shares_memory(matrix, view) for view in loaded.y_pred)
    assert np.shares_memory(matrix, np.asarray(loaded.to_polars()["y_pred"].to_arrow().values))
    assert np.shares_memory(loaded.y_true[0], loaded.y_true[3])  # the same content, once
    assert not matrix.flags.writeable
    assert not loaded.y_true[0].flags.writeable


def test_arrays_of_one_prediction_are_the_callers_own(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction, neighbour = (predict_with_arrays(store, sweep, fold_id=fold) for fold in "01")
    before = store.get_prediction_arrays(prediction)
    changed = store.get_prediction(prediction, load_arrays=True)
    assert before is not None
    assert changed is not None
    for name in ("y_true", "y_pred", "sample_indices", "weights"):
        changed[name][:] = 99
    for again in (store.get_prediction_arrays(prediction), store.get_prediction_arrays(neighbour)):
        assert again is not None
        _assert_same([again[name] for name in COLUMNS], [before[name] for name in COLUMNS])


def test_a_content_saved_anew_after_it_went_is_found_again(store: WorkspaceStore, sweep: Sweep) -> None:
    for y_true in (
        np.zeros(3),
        np.zeros((3, 2)),
        np.ones(3),
        np.zeros(3),
    ):  # the same bytes in another shape are another content
        prediction = predict(store, sweep.pipeline, sweep.chain)
        store.save_prediction_arrays(prediction, y_true, None)
        found = store.get_prediction_arrays(prediction)
        assert found is not None
        _assert_same([found["y_true"]], [y_true])
        assert store.delete_prediction(prediction)
        assert store.get_prediction_arrays(prediction) is None


def test_few_contents_are_kept_in_memory(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold in range(200):
        store.save_prediction_arrays(
            predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold)), np.full(3, float(fold)), None
        )
    store.save_prediction_arrays(predict(store, sweep.pipeline, sweep.chain, fold_id="long"), np.zeros(10_000), None)
    stored = store.sql("SELECT content_hash, array_values FROM shared_arrays")
    contents = SharedContents(store._open().database)
    for address, values in stored.rows():
        found = contents.reals(address)
        assert found is not None
        assert found[0].tolist() == values
    assert len(contents._kept) == 128
    assert max(len(values) for values, _ in contents._kept.values()) == 3


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": -5}, {"batch_size": 2.5}, {"columns": ["colour"]}, {"colour": "red"}]
)
def test_wrong_pieces_are_refused_at_the_call(store: WorkspaceStore, sweep: Sweep, wrong: dict[str, Any]) -> None:
    predict_with_arrays(store, sweep)
    with pytest.raises(InvalidInputError):
        store.iter_arrays(**wrong)


def test_an_unknown_id_among_many_is_refused_before_the_first_piece(store: WorkspaceStore, sweep: Sweep) -> None:
    known = predict_with_arrays(store, sweep)
    bare = predict(store, sweep.pipeline, sweep.chain, fold_id="no arrays")
    assert [len(piece) for piece in store.iter_arrays([known, bare], batch_size=1)] == [1, 1]
    for call in (store.iter_arrays, store.load_arrays):
        with pytest.raises(NotFoundError, match="unknown"):
            call([known, bare, known, "unknown"])


def test_an_id_that_is_stored_under_another_key_is_told_as_damage(store: WorkspaceStore, sweep: Sweep) -> None:
    known = predict_with_arrays(store, sweep)
    database = store._open().database
    with database.transaction():
        database.execute("UPDATE predictions SET id_key = id_key + 1")
        database.execute("UPDATE prediction_values SET id_key = id_key + 1")
    for call in (store.iter_arrays, store.load_arrays):
        with pytest.raises(DamagedStoreError, match=f"prediction {known} does not have the key of its id.*verify"):
            call([known])


def test_one_id_in_place_of_a_list_is_told(store: WorkspaceStore, sweep: Sweep) -> None:
    known = predict_with_arrays(store, sweep)
    for call in (store.iter_arrays, store.load_arrays):
        with pytest.raises(InvalidInputError, match="prediction_ids must be a list of ids, got text"):
            call(known)


STREAM = """
import sys
from n4a_fast import WorkspaceStore
def largest():  # getrusage would begin with the memory of the parent
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    list(store.iter_arrays(fold_id="0", batch_size=1000))
    before, total, rows = largest(), 0.0, 0
    for piece in store.iter_arrays(batch_size=1000):
        total, rows = total + float(piece.y_pred_2d()[:, 0].sum()), rows + len(piece)
    print(largest() - before, rows, int(total))
"""


@pytest.mark.not_on("macos", reason="the peak of a process is told by /proc")
def test_a_stream_takes_little_memory_however_much_there_is(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    matrix = np.random.default_rng(0).random((5_000, 1_000))
    for turn in range(10):
        matrix[:, 0] = turn
        columns = {
            "pipeline_id": begin_pipeline(store, sweep.run),
            "dataset_name": "corn",
            "model_name": f"m{turn}",
            "model_class": "m",
            "partition": "val",
        }
        store.save_predictions({**columns, "fold_id": [str(row) for row in range(len(matrix))]}, y_pred=matrix)
    store.close()
    grown, rows, total = map(int, finish(child(STREAM, tmp_path / "workspace")).split())
    assert (rows, total) == (50_000, 5_000 * 45)
    assert grown < 200  # MB, of 400 in the file


# -- questions about pipelines ---------------------------------------------------------------

PIPELINES = st.sampled_from(
    [
        ids.uuid7(),
        ids.uuid7(),
        "00000000-0000-7000-8000-000000000000",
        "FFFFFFFF-FFFF-7FFF-8FFF-FFFFFFFFFFFF",
        "p%",
        "é",
        "x" * 36,
    ]
)
RUN_IDS = st.sampled_from(["r0", "r1", "r2"])
ASKED = {"pipeline_id": PIPELINES, "run_id": RUN_IDS}
FILTERS = st.fixed_dictionaries({}, optional={name: one | st.lists(one, max_size=3) for name, one in ASKED.items()})


@settings(max_examples=examples(60))
@given(st.dictionaries(PIPELINES, RUN_IDS, min_size=1), FILTERS)
def test_bounds_leave_no_prediction_of_a_pipeline_out(
    workspace: tuple[WorkspaceStore, Sweep], pipelines: dict[str, str], filters: dict[str, Any]
) -> None:
    """Ids of any form, as merged and converted workspaces bring them, by the filter with bounds and by the one
    without.
    """
    database = workspace[0]._open().database

    class Undone(Exception):
        pass

    with pytest.raises(Undone), database.transaction():
        database.execute("DELETE FROM predictions")
        for pipeline, run in pipelines.items():
            key = ids.natural_key(pipeline, None, "0", "val", "m", None)
            database.execute("INSERT INTO pipelines (pipeline_id, run_id) VALUES (?, ?)", (pipeline, run))
            database.execute(
                "INSERT INTO predictions (prediction_id, pipeline_id, nk) VALUES (?, ?, ?)",
                (ids.prediction_id(key), pipeline, ids.nk(key)),
            )
        found = []
        for where, params in (where_clause(filters), where_on_predictions(database, filters)):
            found.append(
                sorted(pipeline for (pipeline,) in database.rows(f"SELECT pipeline_id FROM predictions{where}", params))
            )
        assert found[0] == found[1]
        raise Undone


def test_lists_in_filters_are_any_of_them(store: WorkspaceStore) -> None:
    sweeps = [begin_sweep(store, dataset) for dataset in ("corn", "wheat", "c%")]
    for sweep, dataset in zip(sweeps, ("corn", "wheat", "c%"), strict=True):
        for fold in (0, 1):
            predict_with_arrays(store, sweep, dataset_name=dataset, fold_id=fold, partition="val" if fold else "test")
    first, second, _ = sweeps
    for filters, rows in (
        ({"dataset_name": ["corn", "c%"]}, 4),
        ({"dataset_name": ["c%"], "fold_id": [1, "7"]}, 1),
        ({"pipeline_id": [first.pipeline, second.pipeline]}, 4),
        ({"run_id": [first.run, "unknown"], "partition": ["val"]}, 1),
        ({"pipeline_id": [], "run_id": None}, 6),
        ({"dataset_name": ["c"]}, 0),
    ):
        assert len(store.load_arrays(**filters)) == rows, filters
        assert sum(len(piece) for piece in store.iter_arrays(**filters, batch_size=1)) == rows, filters


# -- contents that go ------------------------------------------------------------------------


@pytest.mark.long
@settings(max_examples=examples(30))
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12),
    st.integers(0, 3),
    st.data(),
)
def test_contents_go_with_their_last_user_wherever_it_is(
    workspace: tuple[WorkspaceStore, Sweep], contents: list[tuple[int, int, int]], neighbours: int, data: st.DataObject
) -> None:
    """With no neighbourhood to look at first, with a small one, and with all."""
    store, sweep = workspace
    pipeline = begin_pipeline(store, sweep.run)
    saved = [predict(store, pipeline, None, fold_id=str(fold)) for fold in range(len(contents))]
    for prediction, (y_true, weights, indices) in zip(saved, contents, strict=True):
        store.save_prediction_arrays(
            prediction, np.full(7, float(y_true)), None, None, np.arange(7) + indices, np.full(7, float(weights))
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_tables, "_NEIGHBOURS", neighbours - 1)
        for place in data.draw(st.lists(st.integers(0, len(saved) - 1), unique=True)):
            store.delete_prediction(saved[place])
            _assert_contents_are_those_in_use(store)
        store.fail_pipeline(pipeline, "done with it")
    _assert_contents_are_those_in_use(store)


def _assert_contents_are_those_in_use(store: WorkspaceStore) -> None:
    for name, columns in prediction_tables._REFERENCES.items():
        used = " UNION ".join(
            f"SELECT {column} FROM prediction_values WHERE {column} IS NOT NULL" for column in columns
        )
        kept = store.sql(f"SELECT content_hash FROM {name} ORDER BY 1")["content_hash"].to_list()
        assert kept == sorted(set(store.sql(used).to_series()))


def test_arrays_of_stored_predictions_are_gathered_like_any_others(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    """Not written to the tables one by one, though each asks the tables whether its prediction is there."""
    saved = [predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold)) for fold in range(20)]
    assert store.query_predictions().height == 20
    for prediction in saved:
        store.save_prediction_arrays(prediction, np.zeros(3), np.ones(3))
    assert store._open().buffer.unflushed == 20
    assert store.load_arrays(saved).y_pred_2d().tolist() == [[1.0] * 3] * 20
    store.close()
    assert plain_rows(tmp_path / "workspace" / "store.duckdb", "SELECT count(*) FROM prediction_arrays") == [(20,)]
