"""The scanner tells what Python's own tools tell of a pickle, and ends on whatever bytes it is given."""

from __future__ import annotations

import collections
import pickle
import pickletools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast._native import opcodes

ROOM = 2**24
OBJECTS: tuple[Any, ...] = (
    None,
    [1, 2.5, "a", b"b", 2**80, -1, True],
    {"a": (1, (2, (3,))), "b": {1, 2}, "c": frozenset({3})},
    collections.OrderedDict(a=1),
    np.arange(12.0).reshape(3, 4),
    np.array(["a", None, (1,)], dtype=object),
    {"long": "x" * 300, "bytes": bytearray(b"y" * 300)},
    [[[[]]], (), {}, set()],
)


def globals_of(data: bytes) -> set[tuple[str, str]]:
    """By Python's disassembler: each global follows its two names, through the memo too."""
    found, strings, memo = set(), list[str](), list[Any]()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(tuple(argument.split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":
            found.add((strings[-2], strings[-1]))
        elif "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            memo.append(strings[-1] if strings else None)
        elif "GET" in opcode.name and isinstance(memo[argument], str):
            strings.append(memo[argument])
    return found


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", range(len(OBJECTS)))
def test_it_finds_the_globals_that_the_disassembler_finds(number: int, protocol: int) -> None:
    data = pickle.dumps(OBJECTS[number], protocol)
    assert set(opcodes.scan(data, ROOM)[0]) == globals_of(data)


def test_uses_are_told_apart() -> None:
    def uses(body: bytes) -> int:
        return next(iter(opcodes.scan(b"\x80\x04" + body + b".", ROOM)[0].values()))

    name = b"\x8c\x01a\x8c\x01b\x93"
    assert uses(name) == uses(name + b")\x81") == uses(name + b")\x81}b") == 0
    assert uses(name + b")R") == uses(b"(" + name + b"o") == uses(b"(ia\nb\n") == 1
    assert uses(name + b"N\x85\x81") == uses(name + b")}\x92") == 4
    assert uses(name + b"}b") == uses(name + b"Na") == uses(name + b")\x81)R") == 8
    assert uses(name + b")\x81Na") == uses(name + b")\x81(NNu") == 16
    assert uses(name + b")\x81\x940h\x00(NNu") == 16  # through the memo


def test_the_maker_of_the_object_is_told() -> None:
    assert opcodes.scan(pickle.dumps(collections.OrderedDict()), ROOM)[1] == ("collections", "OrderedDict")
    assert opcodes.scan(pickle.dumps([collections.OrderedDict()]), ROOM)[1] is None


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_it_ends_on_any_bytes(protocol: int) -> None:
    dice = random.Random(protocol)
    for data in [pickle.dumps(value, protocol) for value in OBJECTS]:
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            cut = bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.3 else changed)
            try:
                opcodes.scan(cut, ROOM)
            except ValueError:
                continue


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends within"),
        (b"\x80\x04N", "ends within"),
        (b"\xff.", "opcode that there is not"),
        (b"(.", "nothing to work on"),
        (b"\x80\x04\x82\x01.", "outside the file"),
        (b"\x80\x04)" + b"\x85" * 300 + b".", "too deep"),
        (b"\x80\x04" + b"N" * 2_000_000 + b".", "more values"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "more values"),
        (b"\x80\x04N)R.", "no global"),
        (b"\x80\x04NNb.", "cannot be changed"),
        (b"\x80\x04NN\x93.", "no text"),
    ],
)
def test_what_is_no_pickle_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        opcodes.scan(data, ROOM)


class Given:
    """An object that gets its state by BUILD."""

    def __init__(self, **state: Any) -> None:
        self.__dict__ = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self.__dict__ == other.__dict__


def asking(kind: type[Any], data: bytes, asked: list[int]) -> tuple[Any, int]:
    """The object that an unpickler reads where it is to ask at these places, and how often it asked."""
    answered = 0

    class Unpickler(kind):  # type: ignore[misc]
        def persistent_load(self, pair: tuple[Any, Any]) -> Any:
            nonlocal answered
            answered += 1
            pair[0].__dict__.update(pair[1])
            return pair[0]

    return Unpickler(opcodes.Asking(data, [(at, at + 1) for at in asked])).load(), answered


LENGTHS = st.sampled_from([4, 40_000, 70_000])  # of texts: in a frame, two that end one, outside of any
NESTED = st.recursive(
    st.one_of(st.integers(0, 2**70), st.binary(max_size=4), LENGTHS.map("x".__mul__)),
    lambda inner: st.one_of(st.builds(Given, a=inner, b=inner), st.lists(inner, max_size=3), st.builds(Given, c=inner)),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", [pickle.Unpickler, pickle._Unpickler], ids=["C", "Python"])  # type: ignore[attr-defined]
@settings(max_examples=60)
@given(made=NESTED, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL), data=st.data())
def test_a_pickle_that_asks_is_whole_frame_by_frame(kind: type[Any], made: Any, protocol: int, data: Any) -> None:
    """Python's own unpickler refuses a frame that does not end where it says, in each of its versions."""
    pickled = pickle.dumps(made, protocol)
    places = sorted(at for each in opcodes.scan(pickled, ROOM)[2].values() for at in each)
    asked = sorted(data.draw(st.sets(st.sampled_from(places)))) if places else []
    found, answered = asking(kind, pickled, asked)
    assert found == made
    assert answered == len(asked)
