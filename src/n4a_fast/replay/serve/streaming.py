"""Many chains on spectra that memory does not hold, or into a file: block after block of spectra.

Each block is replayed as `replay_many` replays spectra in memory, while the next one is read and the one before is
written. Promises what a replay of all spectra at once gives, within `max_bytes` for blocks, copies and results
together; a file appears whole or not at all.

A. Only a chain that is compiled whole is known to predict each spectrum by itself. What runs plainly is asked: the
   first spectra are predicted together and in two parts, and a chain that gives something else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError, StoreError
from n4a_fast.replay.fused.compiled import CompiledChain
from n4a_fast.replay.plain.inputs import check_columns
from n4a_fast.replay.serve.batch import Progress, checked_ids, replay_many
from n4a_fast.replay.serve.replayer import Replayer
from n4a_fast.replay.serve.result_files import require_target, results_in
from n4a_fast.replay.serve.several import Work
from n4a_fast.replay.serve.spectra_blocks import SpectraBlocks, is_stream, spectra_blocks
from n4a_fast.values.ahead import begun, prefetched

Array: TypeAlias = NDArray[Any]

_FIRST = 64  # spectra that tell shapes, and whether chains predict each by itself
_ALONE = 1e-5  # relative: models in single precision round by the size of what they are given
_MOST_ROWS, _LEAST_ROWS = 2**15, 2**10
_BLOCKS = 8  # at least: the first is read, and the last written, while nothing is computed


@dataclass(frozen=True, slots=True)
class _Header:
    """The names of a table's columns, without the table."""

    column_names: list[str]


def replay_into(replayer: Replayer, chain_ids: Sequence[str], work: Work, out: Any, progress: Progress | None) -> Any:
    """Predictions of many chains: an array, or `out` with them in it."""
    ids = checked_ids(chain_ids, work)
    if out is None and not is_stream(work.X, work.max_bytes):
        return replay_many(replayer, ids, work, progress)
    require_target(out, ids)
    if isinstance(work.X, list | tuple):  # several sources, or rows written as lists: at once
        found = replay_many(replayer, ids, work, progress)
        with results_in(out, ids, found[:, :1], found.shape[1]) as results:
            results.put(0, found)
        return out
    return _Stream(replayer, ids, work, spectra_blocks(work.X), progress or (lambda _done, _total: None)).run(out)


@dataclass(frozen=True, slots=True)
class _Stream:
    replayer: Replayer
    ids: list[str]
    work: Work
    spectra: SpectraBlocks
    tell: Progress

    def run(self, out: Any) -> Any:
        """The predictions in `out`, or in an array."""
        like, count = self._proved(self.spectra.head(_FIRST)), self.spectra.count
        blocks = prefetched(self.spectra.blocks(self._rows_at_a_time(like)))
        if out is None and count is None:
            parts: list[Array] = []
            self._fill(lambda _first, block: parts.append(block), blocks)
            return np.concatenate(parts, axis=1)
        target = np.empty((len(like), count, *like.shape[2:]), like.dtype) if out is None and count else out
        with results_in(target, self.ids, like[:, :1], count) as results:
            self._fill(results.put, blocks)
        return target

    def _fill(self, put: Callable[[int, Array], None], blocks: Iterator[Array]) -> None:
        """Replay each block; it is written while the next one is replayed."""
        done, written = 0, _nothing
        with ThreadPoolExecutor(1, "n4a_fast-results") as pool:
            for block in blocks:
                found = self._predicted(block, done)
                written()
                written = begun(pool, put, done, found)
                done += len(block)
                self.tell(done, done if self.spectra.count is None else self.spectra.count)
            written()

    def _predicted(self, block: Array, first: int) -> Array:
        share = replace(self.work, X=block, max_bytes=max(self.work.max_bytes // 4, 1))
        try:
            return replay_many(self.replayer, self.ids, share, None)
        except StoreError as error:
            error.add_note(f"in the block of spectra {first} to {first + len(block) - 1} of X, counted from its first")
            raise

    def _rows_at_a_time(self, like: Array) -> int:
        """As many as leave room for two blocks of results, and for spectra that are read, copied and worked on."""
        results = like.nbytes // like.shape[1]
        share = max(_LEAST_ROWS, -(-(self.spectra.count or _MOST_ROWS * _BLOCKS) // _BLOCKS))
        room = self.work.max_bytes * 3 // 4 // (2 * results + 32 * self.spectra.width)
        return int(np.clip(room, 1, min(share, _MOST_ROWS)))

    def _proved(self, head: Array) -> Array:
        """Predictions of the first spectra; InvalidInputError for a chain that predicts them otherwise in two parts."""
        found = self._predicted(head, 0)
        known = self.replayer.recall(self.ids, self.work.choice)
        if (names := self.spectra.names) is not None:
            for chain in known.values():
                check_columns(chain, _Header(names))
        open_ids = [one for one in dict.fromkeys(self.ids) if not _is_whole(known.get(one))]
        if open_ids and len(head) > 1:
            middle = len(head) // 2
            parts = [replace(self, ids=open_ids)._predicted(part, 0) for part in (head[:middle], head[middle:])]
            for one, apart in zip(open_ids, np.concatenate(parts, axis=1), strict=True):
                if not _alike(found[self.ids.index(one)], apart):
                    raise InvalidInputError(
                        f"chain {one!r} predicts a spectrum otherwise when others are predicted with it, so it cannot"
                        " be replayed in blocks; give the spectra as one array in memory, without out="
                    )
        return found


def _is_whole(chain: CompiledChain | object) -> bool:
    """Whether all of a chain is one map of each spectrum."""
    return isinstance(chain, CompiledChain) and chain.start == 0


def _alike(whole: Array, apart: Array) -> bool:
    if whole.dtype.kind not in "fiub":
        return bool((whole == apart).all())
    largest = np.abs(whole[np.isfinite(whole)]).max(initial=0.0) or 1.0
    return np.allclose(whole, apart, rtol=0.0, atol=_ALONE * largest, equal_nan=True)


def _nothing() -> None:
    pass
