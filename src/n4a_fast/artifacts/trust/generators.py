"""Numpy's random generators: made without a seed where a state follows, which is looked at before numpy takes it.

A generator's place among the numbers that it has made ahead is an index that nobody looks at again. Numpy copies the
state of a Mersenne Twister value by value: asking a generator for it, or seeding one that gets another state, takes as
long as a dozen small trees.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

KINDS = (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
USERS = (np.random.Generator, np.random.RandomState)
_INTEGERS = (int, np.integer)
_MT_LENGTH, _PHILOX_LENGTH = 624, 4


class _Unseeded(ISeedSequence):
    """In the place of a seed."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        """Ones, which numpy replaces with the state."""
        return np.ones(n_words, dtype)


_NO_SEED = _Unseeded()


def made(kind: Any) -> Any:
    """A generator of one of numpy's kinds: by its class, as numpy 2 writes it and gives it a seed with its state, or by
    its name.
    """
    if kind in KINDS:
        return kind(_NO_SEED)
    for one in KINDS:
        if kind == one.__name__:
            return one()
    raise pickle.UnpicklingError("a random generator is none of numpy's")


def require_state(one: Any, state: Any) -> None:
    """UnpicklingError unless numpy would write this state of a generator, or of what draws from one."""
    values = state[0] if type(state) is tuple and type(one) in KINDS else state
    if type(values) is not dict or type(values["bit_generator"]) is not str or not is_in_range(values):
        raise pickle.UnpicklingError("a random generator has no state that numpy writes")


def is_in_range(state: Any) -> bool:
    """Whether a generator's place lies within the numbers that it has made ahead."""
    if state["bit_generator"] == "Philox":
        return _is_within(state["buffer_pos"], _PHILOX_LENGTH)
    return state["bit_generator"] != "MT19937" or _is_within(state["state"]["pos"], _MT_LENGTH)


def _is_within(place: Any, length: int) -> bool:
    return isinstance(place, _INTEGERS) and bool(0 <= place <= length)
