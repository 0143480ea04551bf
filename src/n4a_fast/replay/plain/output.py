"""The result of many chains: one array, filled as they get done.

Promises that all rows have one shape and one kind, else InvalidInputError says which chains differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError

Array: TypeAlias = NDArray[np.float64]


class Output:
    """Predictions by chain; compiled chains write into blocks of it."""

    def __init__(self, chain_ids: Sequence[str]) -> None:
        self._ids = list(chain_ids)
        self._place = {chain_id: number for number, chain_id in enumerate(self._ids)}
        self._whole: Array | None = None
        self._found: dict[str, NDArray[Any]] = {}

    @property
    def done(self) -> int:
        return len(self._found)

    @property
    def missing(self) -> list[str]:
        """Chains without a prediction, in order."""
        return [chain_id for chain_id in self._ids if chain_id not in self._found]

    def block(self, chain_ids: Sequence[str], n_samples: int, n_targets: int) -> Array:
        """An array to fill with (chains, samples[, targets]); a part of the result where that is possible."""
        shape = (n_samples,) if n_targets == 1 else (n_samples, n_targets)
        if self._whole is None:
            self._whole = np.empty((len(self._ids), *shape))
        places = [self._place[chain_id] for chain_id in chain_ids]
        if self._whole.shape[1:] == shape and places == list(range(places[0], places[0] + len(places))):
            return self._whole[places[0] : places[0] + len(places)]
        return np.empty((len(chain_ids), *shape))

    def put(self, chain_id: str, found: NDArray[Any]) -> None:
        self._found[chain_id] = found

    def rows(self, chain_ids: Sequence[str]) -> NDArray[Any]:
        """All predictions, in the order of these ids."""
        self._check()
        if self._whole is not None and self._whole.shape[1:] == self._found[self._ids[0]].shape:
            for chain_id, place in self._place.items():
                if self._found[chain_id].base is not self._whole:
                    self._whole[place] = self._found[chain_id]
            ordered: NDArray[Any] = self._whole
        else:
            ordered = np.stack([self._found[chain_id] for chain_id in self._ids])
        return ordered if list(chain_ids) == self._ids else ordered[[self._place[chain_id] for chain_id in chain_ids]]

    def _check(self) -> None:
        first = self._ids[0]
        for chain_id, found in self._found.items():
            if found.shape != self._found[first].shape:
                told = f"chain {first!r} predicts {self._found[first].shape}, chain {chain_id!r} {found.shape}"
                raise InvalidInputError(
                    f"{told}: these cannot be rows of one array; replay them in groups of one shape"
                )
            if (found.dtype.kind in "fiub") != (self._found[first].dtype.kind in "fiub"):
                raise InvalidInputError(
                    f"chain {first!r} and chain {chain_id!r} predict numbers and labels; replay them in groups of one"
                    " kind"
                )
