"""Every form in which arrays come to a bulk call is stored as the same doubles; contiguous ones are not copied on the
way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import PREDICTION, begin_pipeline, counts, examples
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions.loaded import ListViews
from n4a_fast.schema.columns import PREDICTIONS_ENCODED
from n4a_fast.tables.predictions import bulk
from n4a_fast.values import jsontext

ROWS, SAMPLES = 7, 5
WHOLE = np.arange(ROWS * SAMPLES).reshape(ROWS, SAMPLES)  # whole numbers: exact in every dtype below

FORMS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "float64": lambda m: m.astype("f8"),
    "float32": lambda m: m.astype("f4"),
    "float16": lambda m: m.astype("f2"),
    "big-endian": lambda m: m.astype(">f8"),
    "int16": lambda m: m.astype("i2"),
    "uint64": lambda m: m.astype("u8"),
    "Fortran": lambda m: np.asfortranarray(m.astype("f8")),
    "strided": lambda m: np.repeat(m.astype("f8"), 2, axis=1)[:, ::2],
    "backwards": lambda m: m.astype("f8")[::-1, ::-1].copy()[::-1, ::-1],
    "list of arrays": lambda m: list(m.astype("f4")),
    "list of lists": lambda m: m.tolist(),
    "Arrow lists": lambda m: pa.array(m.astype("f8").tolist()),
    "Arrow chunks": lambda m: pa.chunked_array([pa.array(m[:3].tolist()), pa.array(m[3:].tolist())]),
    "Arrow float32": lambda m: pa.array(m.tolist(), pa.list_(pa.float32())),
}


def columns(store: WorkspaceStore, rows: int) -> dict[str, Any]:
    pipeline = begin_pipeline(store, store.begin_run("r", {}, []))
    return {**PREDICTION, "pipeline_id": pipeline, "fold_id": [str(row) for row in range(rows)]}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    """One store for all examples of a property, each of which deletes what it saved."""
    with WorkspaceStore(tmp_path_factory.mktemp("slices")) as store:
        yield store


@pytest.mark.parametrize("name", ["y_true", "y_pred", "sample_indices"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_stored_as_the_same_numbers(store: WorkspaceStore, form: str, name: str) -> None:
    ids = store.save_predictions(columns(store, ROWS), **{name: FORMS[form](WHOLE)})
    loaded = store.load_arrays(ids, columns=(name,))
    assert np.array_equal(np.stack(getattr(loaded, name)[:]), WHOLE)
    assert getattr(loaded, name)[0].dtype == (np.int64 if name == "sample_indices" else np.float64)


def test_lists_of_probabilities_keep_their_shapes(store: WorkspaceStore) -> None:
    probabilities = [np.full((SAMPLES, 2 + row % 2), 0.5, np.float32) for row in range(ROWS)]
    ids = store.save_predictions(columns(store, ROWS), y_proba=probabilities)
    assert [found.shape for found in store.load_arrays(ids, columns=("y_proba",)).y_proba] == [
        each.shape for each in probabilities
    ]


def test_a_contiguous_matrix_is_not_copied() -> None:
    matrix = np.ascontiguousarray(WHOLE, np.float64)
    given = bulk.checked(
        {**PREDICTION, "pipeline_id": "p", "fold_id": [str(row) for row in range(ROWS)]}, {"y_pred": matrix}
    )
    ((_, tables),) = bulk.slices(given)
    (chunk,) = tables["prediction_values"]["y_pred"].chunks
    assert chunk.values.buffers()[1].address == matrix.__array_interface__["data"][0]


def test_scores_that_all_share_are_kept_once_and_not_looked_at_again() -> None:
    given = {**PREDICTION, "pipeline_id": "p", "fold_id": [str(row) for row in range(ROWS)]}
    ((_, tables),) = bulk.slices(bulk.checked(given, {}))
    scores = tables["predictions"].schema.field("scores")
    assert (scores.type, scores.metadata) == (pa.string_view(), PREDICTIONS_ENCODED.field("scores").metadata)
    assert tables["predictions"]["scores"].unique().to_pylist() == [jsontext.encode(PREDICTION["scores"], "scores")]
    buffers = tables["predictions"]["scores"].chunk(0).buffers()
    assert sum(buffer.size for buffer in buffers if buffer) < 16 * ROWS + 1000


@pytest.mark.parametrize(("samples", "slices"), [(10, [5000]), (1024, [4096, 904]), (3000, [2048, 2048, 904])])
def test_a_slice_copies_so_many_bytes(samples: int, slices: list[int]) -> None:
    given = {**PREDICTION, "pipeline_id": "p", "fold_id": [str(row) for row in range(5000)]}
    of_rows = np.zeros((5000, samples))
    listed = bulk.slices(bulk.checked(given, {"y_pred": list(of_rows)}))
    assert [len(identifiers) for identifiers, _ in listed] == slices
    whole = bulk.slices(bulk.checked(given, {"y_pred": of_rows}))
    assert [len(identifiers) for identifiers, _ in whole] == [5000]


def test_slices_that_replace_one_another_end_as_the_last(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SLICE_ROWS", 3)
    again = {**columns(store, ROWS), "fold_id": [str(row % 2) for row in range(ROWS)]}
    ids = store.save_predictions(again, y_pred=WHOLE.astype(float))
    assert len(set(ids)) == 2
    assert np.array_equal(store.load_arrays(ids[-2:], columns=("y_pred",)).y_pred_2d(), WHOLE[-2:])
    assert counts(store, "predictions", "prediction_values") == {"predictions": 2, "prediction_values": 2}


@settings(max_examples=examples(4))
@drawn(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=9), st.booleans())
@pytest.mark.long
def test_slices_that_have_contents_in_common_keep_each_once(
    workspace: WorkspaceStore, contents: list[tuple[int, int]], is_saved_again: bool
) -> None:
    given = columns(workspace, len(contents))
    y_true, indices = ([np.arange(SAMPLES) + each for each in row] for row in zip(*contents, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "SLICE_ROWS", 2)
        if is_saved_again:  # so that slices replace rows, and what they leave goes
            workspace.save_predictions(given, y_true=y_true[::-1], sample_indices=indices[::-1])
        ids = workspace.save_predictions(given, y_true=y_true, sample_indices=indices)
    loaded = workspace.load_arrays(ids, columns=("y_true", "sample_indices"))
    assert [found.tolist() for found in loaded.y_true] == [each.tolist() for each in y_true]
    assert [found.tolist() for found in loaded.sample_indices] == [each.tolist() for each in indices]
    kept = {"shared_arrays": len({y for y, _ in contents}), "shared_indices": len({each for _, each in contents})}
    assert counts(workspace, *kept) == kept
    workspace.delete_pipeline(given["pipeline_id"])
    assert counts(workspace, *kept) == dict.fromkeys(kept, 0)


def test_nothing_of_a_refused_call_is_written(store: WorkspaceStore) -> None:
    given = columns(store, ROWS)
    ragged: list[Any] = [*WHOLE[:-1].astype(float), [[1.0], [2.0, 3.0]]]
    with pytest.raises(ValueError, match="y_pred"):
        store.save_predictions(given, y_pred=ragged)
    assert counts(store, "predictions", "prediction_values", "shared_arrays") == {
        "predictions": 0,
        "prediction_values": 0,
        "shared_arrays": 0,
    }


def test_what_the_caller_changes_after_the_call_stays_as_it_was(tmp_path: Path) -> None:
    matrix = WHOLE.astype(float)
    with WorkspaceStore(tmp_path) as store:
        ids = store.save_predictions(columns(store, ROWS), y_pred=matrix)
        matrix[:] = -1
        assert np.array_equal(store.load_arrays(ids, columns=("y_pred",)).y_pred_2d(), WHOLE)


@pytest.mark.parametrize("name", ["y_true", "y_pred", "y_proba", "sample_indices", "weights"])
@pytest.mark.parametrize("form", [lambda m: m, list, lambda m: m[0]])
def test_masked_values_are_refused_in_every_form(store: WorkspaceStore, name: str, form: Callable[[Any], Any]) -> None:
    matrix = np.ma.masked_array(WHOLE, mask=np.eye(ROWS, SAMPLES))
    with pytest.raises(InvalidInputError, match=f"{name} has masked values"):
        store.save_predictions(columns(store, ROWS), **{name: form(matrix)})
    assert store.query_predictions().is_empty()


@pytest.mark.parametrize("lengths", [[3, 3, 3, 3], [3, 2, 3, 3]], ids=["of one length", "beside others"])
@pytest.mark.parametrize("rows", [[0, 2, 3], [3, 0, 2, 2], [2]])
def test_a_matrix_is_its_arrays_in_the_order_asked_for(lengths: list[int], rows: list[int]) -> None:
    lists = pa.array([[float(10 * row + place) for place in range(size)] for row, size in enumerate(lengths)])
    views = ListViews(lists.slice(0), pa.nulls(len(lengths), pa.int32()), np.array(rows))
    matrix = views.to_2d()
    np.testing.assert_array_equal(matrix, np.stack(list(views)))
    assert not matrix.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1.0


@pytest.mark.parametrize("places", [range(4), range(3, -1, -1), range(0, 4, 2), [1, 1, 3], []], ids=str)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("rows", [[2, 0, 2, 1], [2, -1, 0, -1]], ids=str)
def test_copies_and_lists_are_those_of_the_views_and_nobody_elses(
    places: Sequence[int], wide: bool, rows: list[int]
) -> None:
    lists = pa.array([[1.0, 2.0], [3.0, 4.0, 5.0, 6.0], [7.0, 8.0]])
    views = ListViews(lists, pa.array([2 if wide else None] * 3, pa.int32()), np.array(rows))
    wanted = [views[place] for place in places]
    for found, view in zip(views.copies(places), wanted, strict=True):
        assert (found is None) is (view is None)
        if found is not None:
            np.testing.assert_array_equal(found, view)
            found[:] = 0.0  # its own
    made = views.to_lists(places)
    assert made == [None if view is None else view.ravel().tolist() for view in wanted]
    assert len({id(each) for each in made if each is not None}) == sum(each is not None for each in made)
