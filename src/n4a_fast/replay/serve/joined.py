"""The weights of many compiled chains as one matrix, remembered from call to call.

Promises what joining the chains again would give: a matrix is only used for the very objects it was
joined from. Copying the weights of a thousand chains takes a tenth of the time of their product.

A. The intercepts are one more column: adding them to the result would be another pass over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.compiled import CompiledChain
from n4a_fast.replay.fused.stages import Bounded

Array: TypeAlias = NDArray[np.float64]

_REMEMBERED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Stack:
    chains: list[CompiledChain]
    weights: Array


class Joined:
    """Weights of blocks of chains, the latest ones remembered; safe to share between threads."""

    def __init__(self) -> None:
        self._stacks: Bounded[_Stack] = Bounded(_REMEMBERED_BYTES, lambda stack: stack.weights.nbytes)

    def of(self, block: Sequence[CompiledChain]) -> Array:
        """The weights of these chains and, in the last column, their intercepts at the centre of the first: (chains x
        targets, columns + 1).
        """
        chains, key = list(block), (block[0].chain_id, len(block))
        found = self._stacks.get(key)
        if found is None or found.chains != chains:  # chains are equal if they are the same object
            found = _Stack(chains, _join(chains))
            if found.weights.nbytes <= _REMEMBERED_BYTES:
                self._stacks.put(key, found)
        return found.weights


def _join(block: Sequence[CompiledChain]) -> Array:
    n_targets, width = block[0].weights.shape
    joined = np.empty((len(block), n_targets, width + 1))
    np.stack([chain.weights for chain in block], out=joined[:, :, :-1])
    np.stack([chain.intercept for chain in block], out=joined[:, :, -1])
    center = block[0].center
    same = {id(center)}
    for number, chain in enumerate(block):
        if id(chain.center) not in same:
            if np.array_equal(chain.center, center):
                same.add(id(chain.center))
            else:
                joined[number, :, -1] += chain.weights @ (center - chain.center)
    return joined.reshape(-1, width + 1)
