"""Python's collector waits for the end of a block, and goes on as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from n4a_fast.values.uncollected import uncollected


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def collections() -> int:
    return sum(each["collections"] for each in gc.get_stats())


def test_nothing_is_collected_in_the_block() -> None:
    before = collections()
    with uncollected():
        made = [{"row": [place]} for place in range(20_000)]
        assert collections() == before
    assert gc.isenabled()
    assert len(made) == 20_000


def test_a_block_that_raises_lets_the_collector_go_on() -> None:
    with pytest.raises(ValueError, match="stop"), uncollected():
        raise ValueError("stop")
    assert gc.isenabled()


def test_who_has_switched_the_collector_off_finds_it_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
