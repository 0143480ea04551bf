"""Arrays come back as they were; what does not fit is refused before anything is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import Sweep, count, predict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.tables.predictions import arrays

NAMES = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")


def trip(store: WorkspaceStore, sweep: Sweep, **given_arrays: Any) -> dict[str, Any]:
    prediction = predict(store, sweep.pipeline, sweep.chain)
    store.save_prediction_arrays(prediction, **{"y_true": None, "y_pred": None, **given_arrays})
    store.flush()
    found = store.get_prediction(prediction, load_arrays=True)
    assert found is not None
    bare = store.get_prediction_arrays(prediction)
    assert bare is not None
    for name in NAMES:
        np.testing.assert_array_equal(found[name], bare[name])
    return bare


def test_all_five_arrays_come_back(store: WorkspaceStore, sweep: Sweep) -> None:
    given_arrays = {
        "y_true": np.array([1.5, np.nan, np.inf]),
        "y_pred": np.array([1.0, 2.0, -np.inf]),
        "y_proba": np.arange(6.0).reshape(3, 2),
        "sample_indices": np.array([2**62, -1, 0]),
        "weights": np.array([0.1, 0.9]),
    }
    found = trip(store, sweep, **given_arrays)
    for name, value in given_arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == (np.int64 if name == "sample_indices" else np.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "int64", "uint16", "bool", ">f8", "list"])
def test_every_numeric_kind_is_taken(store: WorkspaceStore, sweep: Sweep, dtype: str) -> None:
    value = [0, 1, 1] if dtype == "list" else np.array([0, 1, 1]).astype(dtype)
    found = trip(store, sweep, **dict.fromkeys(NAMES, value))
    assert [found[name].tolist() for name in NAMES] == [[0, 1, 1]] * 5


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3), (1, 5), (0,), (0, 3), (1,)])
def test_shapes_come_back(store: WorkspaceStore, sweep: Sweep, shape: tuple[int, ...]) -> None:
    value = np.arange(float(np.prod(shape))).reshape(shape)
    found = trip(store, sweep, y_true=value, y_pred=value, y_proba=value)
    for name in ("y_true", "y_pred", "y_proba"):
        assert found[name].shape == shape
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("name", ["y_true", "y_pred"])
def test_one_target_as_a_column_counts_as_one_dimension(store: WorkspaceStore, sweep: Sweep, name: str) -> None:
    assert trip(store, sweep, **{name: np.arange(4.0)[:, None]})[name].shape == (4,)


def test_probabilities_of_one_class_keep_their_column(store: WorkspaceStore, sweep: Sweep) -> None:
    assert trip(store, sweep, y_proba=np.ones((4, 1)))["y_proba"].shape == (4, 1)


@pytest.mark.parametrize("view", [lambda x: x[::2], lambda x: x[:, ::-1], np.asfortranarray, lambda x: x.T[:4]])
def test_any_memory_layout_is_taken(store: WorkspaceStore, sweep: Sweep, view: Any) -> None:
    value = view(np.arange(48.0).reshape(8, 6))
    np.testing.assert_array_equal(trip(store, sweep, y_proba=value)["y_proba"], value)


def unaligned(values: Any) -> Any:
    return np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype)


def read_only(values: Any) -> Any:
    values.flags.writeable = False
    return values


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x[::2],
        lambda x: x[::-1],
        lambda x: x.astype(x.dtype.newbyteorder()),
        np.ma.array,
        unaligned,
        read_only,
    ],
    ids=["strided", "backwards", "other byte order", "masked array", "unaligned", "read-only"],
)
def test_targets_and_indices_are_taken_in_any_layout(store: WorkspaceStore, sweep: Sweep, layout: Any) -> None:
    given = {
        "y_true": layout(np.arange(6.0)),
        "y_pred": layout(np.arange(6.0) + 0.5),
        "sample_indices": layout(np.arange(6) * 2**40),
    }
    found = trip(store, sweep, **given)
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", ">i4", "bool", "float32"]
)
def test_indices_of_any_dtype_come_back_whole(store: WorkspaceStore, sweep: Sweep, dtype: str) -> None:
    found = trip(store, sweep, y_pred=np.zeros(3), sample_indices=np.array([0, 1, 1]).astype(dtype))["sample_indices"]
    assert found.tolist() == [0, 1, 1]


def test_the_caller_may_change_its_arrays_after_the_call(store: WorkspaceStore, sweep: Sweep) -> None:
    given_arrays: dict[str, Any] = {name: np.arange(3.0) for name in ("y_true", "y_pred", "y_proba", "weights")}
    given_arrays["sample_indices"] = np.arange(3)
    prediction = predict(store, sweep.pipeline, sweep.chain)
    store.save_prediction_arrays(prediction, **given_arrays)
    for value in given_arrays.values():
        value[:] = 99
    found = store.get_prediction_arrays(prediction)
    assert found is not None
    assert all(found[name].tolist() == [0, 1, 2] for name in NAMES)


def test_arrays_that_were_not_given_are_none(store: WorkspaceStore, sweep: Sweep) -> None:
    assert trip(store, sweep) == dict.fromkeys(NAMES)
    prediction = predict(store, sweep.pipeline, sweep.chain, fold_id="bare")
    assert store.get_prediction_arrays(prediction) is None
    found = store.get_prediction(prediction, load_arrays=True)
    assert found is not None
    assert {name: found[name] for name in NAMES} == dict.fromkeys(NAMES)
    bare = store.get_prediction(prediction)
    assert bare is not None
    assert not set(NAMES) & set(bare)


@pytest.mark.parametrize(
    ("given_arrays", "named"),
    [
        ({"y_true": np.zeros(3), "y_pred": np.zeros(4)}, "y_true has 3, y_pred has 4"),
        ({"y_pred": np.zeros(3), "y_proba": np.zeros((4, 2))}, "y_proba has 4"),
        ({"y_pred": np.zeros(3), "sample_indices": np.arange(2)}, "sample_indices has 2"),
        ({"y_true": np.zeros((3, 2)), "y_pred": np.zeros((3, 3))}, "same targets"),
        ({"y_true": np.zeros((3, 2)), "y_pred": np.zeros(3)}, "same targets"),
        ({"y_pred": np.zeros((2, 2, 2))}, "y_pred must have 1 to 2 dimensions"),
        ({"y_pred": np.float64(3.0)}, "y_pred must have 1 to 2 dimensions"),
        ({"y_proba": np.zeros((2, 2, 2))}, "y_proba must have"),
        ({"weights": np.zeros((3, 2))}, "weights must be 1-D"),
        ({"sample_indices": np.zeros((3, 2), int)}, "sample_indices must be 1-D"),
        ({"sample_indices": np.array([0.5])}, "whole numbers"),
        ({"sample_indices": np.array([np.nan])}, "whole numbers"),
        ({"sample_indices": np.array([1e300])}, "whole numbers"),
        ({"sample_indices": np.array([2**63], np.uint64)}, "whole numbers"),
        ({"y_true": [[1.0, 2.0], [3.0]]}, "y_true is ragged"),
        ({"y_true": np.ma.masked_array([1.0, 2.0], [False, True])}, "y_true has masked values"),
        ({"y_pred": np.array([1 + 2j])}, "y_pred must be numeric"),
        ({"y_true": np.array([1, None], object)}, "y_true must be numeric"),
        ({"y_true": np.array(["2026-01-01"], "datetime64[D]")}, "y_true must be numeric"),
        ({"weights": "heavy"}, "weights must be an array"),
        ({"y_pred": {"a": 1}}, "y_pred must be numeric"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_that_do_not_fit_are_refused_and_the_old_ones_stay(
    store: WorkspaceStore, sweep: Sweep, given_arrays: dict[str, Any], named: str
) -> None:
    prediction = predict(store, sweep.pipeline, sweep.chain)
    store.save_prediction_arrays(prediction, np.ones(2), np.ones(2))
    with pytest.raises(InvalidInputError, match=named):
        store.save_prediction_arrays(prediction, **{"y_true": None, "y_pred": None, **given_arrays})
    found = store.get_prediction_arrays(prediction)
    assert found is not None
    assert found["y_pred"].tolist() == [1, 1]
    assert count(store, "prediction_arrays") == 1


_FLOATS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=4), elements=st.floats(width=64)
)


@given(_FLOATS)
def test_what_is_checked_holds_the_same_values(value: np.ndarray[Any, Any]) -> None:
    found = arrays.checked(None, None, value, None, None).y_proba
    assert found is not None
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, value)


_TARGETS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.longdouble, np.int32, bool]),
    st.sampled_from([(0,), (3,), (1, 1), (3, 1), (0, 1), (3, 2), (1, 3), (2, 0)]),
    elements=st.integers(0, 1),
)


@given(_TARGETS, st.booleans())
def test_floats_in_one_column_are_what_any_other_target_becomes(value: np.ndarray[Any, Any], turned: bool) -> None:
    value = value[::-1] if turned else value
    found, plain = arrays.checked(value, None, None, None, None).y_true, value.astype(np.float64)
    assert found is not None
    assert (found.dtype, found.flags.c_contiguous) == (np.float64, True)
    np.testing.assert_array_equal(found, plain.reshape(-1) if plain.shape[1:] == (1,) else plain, strict=True)
