"""What numpy, scikit-learn and Python pickle comes from outside as pickle itself would load it."""

from __future__ import annotations

import collections
import datetime
import decimal
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KDTree
from tricks import as_joblib

from n4a_fast.artifacts.trust import trust

RNG = np.random.default_rng(0)
RECORD = np.dtype([("a", "<f4"), ("b", ">i8", (2, 3)), ("c", "U3")], align=True)
TITLED = np.dtype({"names": ["a"], "formats": ["f8"], "titles": ["long"], "offsets": [8], "itemsize": 24})
VALUES = {
    **{f"numbers of {kind}": np.arange(6).astype(kind) for kind in "?bBhHiIlLqQefdgFDG" + "O"},
    "texts": np.array(["a", "bcd", ""]),
    "texts of another order": np.array(["a", "bcd"]).astype(">U5"),
    "bytes": np.array([b"a", b"bcd"]),
    "moments": np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
    "spans": np.array([1, 2], dtype="m8[25us]"),
    "spans of no unit": np.array([1, 2], dtype="m8"),
    "big-endian numbers": np.arange(6, dtype=">f8"),
    "columns first": np.asfortranarray(RNG.random((3, 4))),
    "every other": RNG.random((6, 4))[::2, ::-1],
    "nothing": np.empty((0, 3)),
    "one": np.array(3.0),
    "objects": np.array([[None, "a"], [1, (2, 3)]], dtype=object),
    "objects, columns first": np.asfortranarray(np.array([[None, "a"], [1, (2, 3)]], dtype=object)),
    "records": np.zeros(3, RECORD),
    "records with titles": np.zeros(3, TITLED),
    "a type of records": RECORD,
    "a type with a note": np.dtype("f8", metadata={"unit": "nm"}),
    "a matrix": np.matrix([[1.0, 2.0]]),
    "a matrix of objects": np.matrix([[None, 2.0]]),
    "a masked array": np.ma.masked_array([1.0, 2.0], [True, False]),
    "masked objects": np.ma.masked_array(np.array([1, None], dtype=object), [True, False]),
    "numbers": [np.float32(1), np.int64(2), np.str_("a"), np.bool_(True), np.datetime64("2020"), 2**200, 1j],
    "collections": [{1, 2}, frozenset("a"), collections.OrderedDict(a=1), collections.Counter("aab")],
    "more collections": [collections.deque([1], 3), collections.defaultdict(int, a=1), range(3), slice(1, 2)],
    "times": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1), decimal.Decimal("1.5")],
    "a generator": np.random.default_rng(0),
    "another generator": np.random.Generator(np.random.Philox(0)),
    "an old generator": np.random.RandomState(0),
    "a distance tree": KDTree(RNG.random((9, 2))),
}


def told(value: Any) -> Any:
    """All that matters of a value, to be compared."""
    if isinstance(value, np.ma.MaskedArray):
        return type(value), told(value.data), told(value.mask), str(value.fill_value)
    if isinstance(value, np.ndarray):
        return type(value), told(value.dtype), value.shape, value.flags.f_contiguous, repr(value.tolist())
    if isinstance(value, np.dtype):
        return value, value.isalignedstruct, value.fields and [*value.fields.items()], value.metadata
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state())
    if isinstance(value, KDTree):
        return [told(one) for one in value.__getstate__()[:4]]
    return type(value), [told(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", VALUES)
def test_values_come_in_as_pickle_loads_them(name: str) -> None:
    value = VALUES[name]
    for data in (pickle.dumps(value, protocol) for protocol in range(3, 6)):
        assert told(trust("workspace").loads("a", data, "joblib", "imported")) == told(pickle.loads(data))
    for packed in (0, 3):
        data = as_joblib([value, value], compress=packed)
        one, again = trust("workspace").loads("a", data, "joblib", "imported")
        assert told(one) == told(again) == told(value)
