"""Arrays that joblib puts between the opcodes lie where the scanner says: there Python's own unpickler finds them."""

from __future__ import annotations

import io
import pickle
import random
from typing import Any, ClassVar

import joblib
import numpy as np
import pytest
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor

from n4a_fast._native import opcodes

ROOM = 2**24
X, Y = np.random.default_rng(0).random((30, 3)), np.arange(30.0)
SHARED = np.arange(3.0)
OBJECTS: dict[str, Any] = {
    "numbers": [np.arange(6).astype(kind) for kind in "?bBhHiIlLqQefdgFDG"],
    "shapes": [
        np.array(3.0),
        np.zeros((0, 3)),
        np.asfortranarray(np.ones((2, 3, 4))),
        np.ones(300),
        np.ones((1, 70_000)),
    ],
    "texts": [np.array(["a", "bcd"]), np.array([b"a", b"bcd"]), np.array([""]), np.zeros(2, "V3")],
    "moments": [np.array(["2020"], "M8[D]"), np.array([1], "m8[25us]"), np.arange(3, dtype=">f8")],
    "records": [np.zeros(3, np.dtype([("a", "<f4"), ("b", ">i8", (2, 3)), ("c", "U3")], align=True))] * 2,
    "objects": [np.array([None, "a", SHARED], dtype=object), SHARED, SHARED, np.array([{}], dtype=object)],
    "a number before": [np.float64(1), np.arange(3.0), {"shape": (9,), "dtype": "f4"}, np.arange(4.0)],
    "a matrix": np.matrix([[1.0, 2.0]]),
    "boosted": GradientBoostingRegressor(n_estimators=3, random_state=0).fit(X, Y),
    "by histogram": HistGradientBoostingRegressor(max_iter=3, random_state=0).fit(X, Y),
}
HARMLESS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("copy_reg", "_reconstructor"),
    ("__builtin__", "object"),
}


class Reading(pickle._Unpickler):
    """Python's own unpickler, which reads each array as joblib does and notes where it was."""

    stack: list[Any]

    def __init__(self, data: bytes, names: set[tuple[str, str]] | None = None) -> None:
        self.file = io.BytesIO(data)
        super().__init__(self.file)
        self.names, self.found = names, list[tuple[int, int, bool]]()

    def find_class(self, module: str, name: str) -> Any:
        if self.names is not None and (module, name) not in self.names:
            raise pickle.UnpicklingError(name)
        return super().find_class(module, name)

    def load_array(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        array = self.stack[-1]
        if not isinstance(array, NumpyArrayWrapper):
            return
        start = self.file.tell()
        if array.dtype.hasobject:
            self.stack[-1] = pickle.Unpickler(self.file).load()
        else:
            if array.safe_get_numpy_array_alignment_bytes() is not None:
                self.file.seek(self.file.read(1)[0], io.SEEK_CUR)
            start = self.file.tell()
            nbytes = int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize
            if len(values := self.file.read(nbytes)) != nbytes:
                raise EOFError
            self.stack[-1] = np.frombuffer(bytearray(values), array.dtype).reshape(array.shape, order=array.order)
        self.found.append((start, self.file.tell(), array.dtype.hasobject))

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_array}


def dumped(value: Any, protocol: int = 4) -> bytes:
    written = io.BytesIO()
    joblib.dump(value, written, protocol=protocol)
    return written.getvalue()


# item by item, as the oldest protocol writes, what is said of a type with fields stands among what is said of its array
WRITTEN = [
    (name, protocol)
    for name in OBJECTS
    for protocol in range(0 if name not in ("records", "by histogram") else 1, pickle.HIGHEST_PROTOCOL + 1)
]


@pytest.mark.parametrize(("name", "protocol"), WRITTEN)
def test_arrays_lie_where_joblib_reads_them(name: str, protocol: int) -> None:
    data = dumped(OBJECTS[name], protocol)
    reading = Reading(data)
    reading.load()
    assert [*opcodes.scan(data, ROOM)[3].values()] == reading.found
    assert reading.found


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_where_a_changed_file_is_passed_its_arrays_lie_where_joblib_reads_them(protocol: int) -> None:
    dice, passed = random.Random(protocol), 0
    data = dumped([np.arange(3.0), np.array(["ab"]), np.ones((2, 2), np.int16)], protocol)
    for _ in range(3_000):
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 3)):
            changed[dice.randrange(len(changed))] = dice.choice([dice.randrange(256), *data[-40:], *range(6)])
        try:
            found = opcodes.scan(bytes(changed), ROOM)[3]
        except ValueError:
            continue
        reading = Reading(bytes(changed), HARMLESS)
        try:
            reading.load()
        except Exception:  # such a file nobody loads
            continue
        assert [*found.values()] == reading.found
        passed += 1
    assert passed > 20


HEAD = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81"
DTYPE = b"U\x05dtypecnumpy\ndtype\nU\x02u1\x85R"
SHAPE = b"U\x05shapeK\x02\x85"


@pytest.mark.parametrize(
    "body",
    [
        b"}(" + DTYPE + b"ub",  # no shape
        b"}(" + SHAPE + b"ub",  # no type
        b"}(" + DTYPE + b"U\x05shapeK\x02ub",  # a number for a shape
        b"}(" + DTYPE + b"U\x05shapeU\x01a\x85ub",
        b"}(" + DTYPE + SHAPE + b"V\\u0073hape\nK\x09\x85ub",  # says it again by another spelling
        b"}(" + DTYPE + SHAPE + b"S'shape'\nK\x09\x85ub",
        b"}(" + DTYPE + SHAPE + b"NNub",  # a key that is no text
        b"}q\x00(" + DTYPE + b"u}(" + SHAPE + b"u0(" + SHAPE + b"ub",  # in turns with another dict
        b"(" + SHAPE + DTYPE + b"db",
        b"}(U\x05dtypecnumpy\ndtype\nU\x02zz\x85R" + SHAPE + b"ub",
        b"}(" + DTYPE + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffK\x01K\x01tb" + SHAPE + b"ub",  # hides objects
        b"}(" + DTYPE + b"(K\x03U\x01|K\x02NNJ\xff\xff\xff\xffK\x01K\x00tb" + SHAPE + b"ub",  # of arrays
        b"}(" + DTYPE + b"Nb" + SHAPE + b"ub",
        b"Nb",
    ],
)
def test_what_joblib_does_not_say_is_no_array(body: bytes) -> None:
    with pytest.raises(ValueError, match="as joblib does not"):
        opcodes.scan(HEAD + body + b"ab.", ROOM)


def test_an_array_is_cut_or_lies_in_a_frame_or_another_array() -> None:
    sound = HEAD + b"}(" + DTYPE + SHAPE + b"ub"
    assert [*opcodes.scan(sound + b"ab.", ROOM)[3].values()] == [(len(sound), len(sound) + 2, False)]
    with pytest.raises(ValueError, match="ends within"):
        opcodes.scan(sound + b"a", ROOM)
    with pytest.raises(ValueError, match="frames"):
        opcodes.scan(b"\x80\x04\x95" + len(sound[2:] + b"ab.").to_bytes(8, "little") + sound[2:] + b"ab.", ROOM)
    of_objects = sound.replace(b"U\x02u1", b"U\x02O8")
    with pytest.raises(ValueError, match="another one's objects"):
        opcodes.scan(of_objects + sound + b"ab..", ROOM)
    with pytest.raises(ValueError, match="joblib does not"):
        opcodes.scan(b"\x80\x02Vjoblib\\u002enumpy_pickle\nVNumpyArrayWrapper\n\x93.", ROOM)
    assert [*opcodes.scan(of_objects + b"N..", ROOM)[3].values()] == [(len(sound), len(sound) + 2, True)]


SMALL: dict[str, Any] = {
    "numbers": np.arange(6.0),
    "no numbers": np.zeros((0, 3), np.int32),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "axes in turns": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "records": np.zeros(3, [("left", np.int64), ("leaf", np.uint8)]),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_arrays_are_made_as_numpy_makes_them(name: str) -> None:
    made, told = SMALL[name].__reduce_ex__(5)[:2]
    if not made.__name__.startswith("_frombuffer"):
        pytest.skip("this NumPy writes it otherwise")
    arguments = (bytearray(told[0]), *told[1:])
    found, expected = opcodes.array_from_bytes(*arguments), made(*arguments)
    assert (found.dtype, found.shape, found.strides) == (expected.dtype, expected.shape, expected.strides)
    assert found.flags.writeable
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"12345678", np.dtype(object), (1,), "C"),
        (b"12345678", "f8", (1,), "C"),
        (b"12345678", np.dtype("f8"), (1,), "A"),
        (b"12345678", np.dtype("f8"), (1,), "C", (0,)),
        (b"1234567812345678", np.dtype("f8"), (1,), "C"),
        (b"1234", np.dtype("f8"), (1,), "C"),
        (b"12345678", np.dtype("f8"), (-1, -1), "C"),
        (12345678, np.dtype("f8"), (1,), "C"),
    ],
)
def test_small_arrays_of_another_form_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        opcodes.array_from_bytes(*arguments)
