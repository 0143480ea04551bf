"""The weights of many compiled chains as one matrix, remembered from call to call.

Promises what joining the chains again would give: a matrix is only used for the very objects it was
joined from. Copying the weights of a thousand chains takes a tenth of the time of their product.

A. The intercepts are one more column: adding them to the result would be another pass over it.
B. The chains of a matrix share the centre that lies closest to zero: far from the spectra digits are lost.
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
class Stack:
    """The weights of some chains and, in the last column, their intercepts at one centre: (chains x targets,
    columns + 1).
    """

    chains: list[CompiledChain]
    center: Array
    weights: Array


class Joined:
    """Weights of blocks of chains, the latest ones remembered; safe to share between threads."""

    def __init__(self) -> None:
        self._stacks: Bounded[Stack] = Bounded(_REMEMBERED_BYTES, lambda stack: stack.weights.nbytes)

    def of(self, block: Sequence[CompiledChain]) -> Stack:
        """These chains as one matrix."""
        chains, key = list(block), (block[0].chain_id, len(block))
        found = self._stacks.get(key)
        if found is None or found.chains != chains:  # chains are equal if they are the same object
            found = _join(chains)
            if found.weights.nbytes <= _REMEMBERED_BYTES:
                self._stacks.put(key, found)
        return found


def _join(chains: list[CompiledChain]) -> Stack:
    n_targets, width = chains[0].weights.shape
    joined = np.empty((len(chains), n_targets, width + 1))
    np.stack([chain.weights for chain in chains], out=joined[:, :, :-1])
    np.stack([chain.intercept for chain in chains], out=joined[:, :, -1])
    centers = {id(chain.center): chain.center for chain in chains}
    center = min(centers.values(), key=lambda one: float(np.abs(one).max()))
    same = {name for name, one in centers.items() if np.array_equal(one, center)}
    for number, chain in enumerate(chains):
        if id(chain.center) not in same:
            joined[number, :, -1] += chain.weights @ (center - chain.center)
    return Stack(chains, center, joined.reshape(-1, width + 1))
