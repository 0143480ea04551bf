"""Many chains on one X: one matrix product for all that share a row statistic, prefixes run once.

Owns the order of the work and its memory: blocks of chains, chunks of samples, one prefix at a time.
Promises the rows in the order of the chain ids, each what `replay_chain` gives for it within
rounding, and that errors of any chain are raised, never skipped. Chains that are not compiled run
plainly, over `n_jobs` processes of joblib where that is asked for.

A. Only compiled chains are cut into chunks of samples: an operator that runs plainly may look at all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.fused.statistics import centred
from n4a_fast.replay.plain.inputs import check_input, finite
from n4a_fast.replay.plain.output import Output
from n4a_fast.replay.serve.joined import Stack
from n4a_fast.replay.serve.matrix_threads import matrix_threads
from n4a_fast.replay.serve.replayer import Replayer
from n4a_fast.replay.serve.several import Work, plain_predictions, require_models
from n4a_fast.values import checks
from n4a_fast.values.ahead import begun

Array: TypeAlias = NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], object]

MAX_BYTES = 2**28
_AT_A_TIME = 1024  # chains: enough for a matrix product at full speed, few enough for progress to be told


def replay_many(replayer: Replayer, chain_ids: Sequence[str], work: Work, progress: Progress | None) -> NDArray[Any]:
    """Predictions of many chains, one row a chain."""
    ids = checked_ids(chain_ids, work)
    unique = list(dict.fromkeys(ids))
    tell = progress or (lambda _done, _total: None)
    with matrix_threads(work.threads):
        state = replayer.state()
        known = replayer.recall(unique, work.choice)
        rows = replayer.require([chain_id for chain_id in unique if not isinstance(known.get(chain_id), CompiledChain)])
        require_models(replayer, rows.values(), work.choice.folds)  # before any work is done
        output, unnamed = Output(unique), type(work.X) is np.ndarray and work.wavelengths is None
        for block in _blocks(unique, _AT_A_TIME if len(known) < len(unique) else len(unique)):
            bench = Bench(replayer.load_artifact, work.max_bytes // 8)
            for chain_id in block:
                if chain_id not in known:
                    known[chain_id] = replayer.prepare(
                        rows[chain_id], work.X, work.wavelengths, work.choice, bench, state
                    )
                if not unnamed or known[chain_id].n_sources > 1:
                    check_input(known[chain_id], work.X, work.wavelengths)
            for group in _groups(block, known, work.return_proba):
                _run_group(replayer, group, work, bench, output)
            tell(output.done, len(unique))
        for block in _blocks(output.missing, _AT_A_TIME):
            for chain_id, found in plain_predictions(
                replayer, block, work, Bench(replayer.load_artifact, work.max_bytes // 8)
            ):
                output.put(chain_id, found)
                tell(output.done, len(unique))
    return output.rows(ids)


def checked_ids(chain_ids: Sequence[str], work: Work) -> list[str]:
    """The ids as a list; InvalidInputError for arguments that no call can be made with."""
    if isinstance(chain_ids, str):
        raise InvalidInputError("chain_ids must be a sequence of chain ids; for one chain use replay_chain")
    ids = checks.texts(chain_ids, "chain_ids")
    if not ids:
        raise InvalidInputError("chain_ids is empty; give at least one chain")
    if work.threads < 1 or work.max_bytes < 1 or work.n_jobs == 0:
        raise InvalidInputError(
            f"threads={work.threads} and max_bytes={work.max_bytes} must be positive, n_jobs={work.n_jobs} not zero"
        )
    return ids


def _blocks(chain_ids: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Parts of at most so many: each has a bench of its own, so that the operators of few chains are in memory at a
    time.
    """
    yield from (chain_ids[first : first + most] for first in range(0, len(chain_ids), most))


def _groups(
    chain_ids: Sequence[str], known: Mapping[str, CompiledChain | PlainChain], return_proba: bool
) -> list[list[CompiledChain]]:
    """Compiled chains that one matrix product serves, in the order given."""
    found: dict[Hashable, list[CompiledChain]] = {}
    for chain_id in chain_ids:
        chain = known.get(chain_id)
        if isinstance(chain, CompiledChain) and chain.answers(return_proba):
            found.setdefault(chain.group, []).append(chain)
    return list(found.values())


def _run_group(replayer: Replayer, group: Sequence[CompiledChain], work: Work, bench: Bench, output: Output) -> None:
    spectra = replayer.spectra_for(group[0], work.X, work.wavelengths, bench)
    if spectra is None:
        return  # another width: the plain path says so
    if group[0].link is not None:
        for chain in group:
            if (answer := chain.answer(spectra, work.return_proba)) is not None:
                output.put(chain.chain_id, answer)
        return
    n_targets, width = group[0].weights.shape
    at_a_time = max(1, work.max_bytes // 4 // (8 * n_targets * width))
    chunks = _chunks(len(spectra), work.max_bytes // 8 // (8 * max(width, spectra.shape[1])), work.threads)
    for first in range(0, len(group), at_a_time):
        block = group[first : first + at_a_time]
        target = output.block([chain.chain_id for chain in block], len(spectra), n_targets)
        stack = replayer.joined.of(block)
        products = [partial(_product_into, target[:, rows], stack, spectra[rows]) for rows in chunks]
        with np.errstate(all="ignore"):
            sums = sum(_side_by_side(products, work.threads), np.zeros(len(block)))
        for chain, found, total in zip(block, target, sums.tolist(), strict=True):
            if isfinite(total) or finite(found):
                output.put(chain.chain_id, found)


def _chunks(n_rows: int, most: int, threads: int) -> list[slice]:
    """Samples in parts of one size, as many for each thread, of at most `most` rows for all threads together."""
    rounds = max(1, -(-n_rows // max(1, most)))
    size = max(1, -(-n_rows // (rounds * threads)))
    return [slice(first, first + size) for first in range(0, n_rows, size)]


def _side_by_side(products: Sequence[Callable[[], Array]], threads: int) -> Iterator[Array]:
    """What these give, by so many threads. Each has BLAS for itself: its own threads wait for each other by spinning,
    and the row statistic would have one.
    """
    if threads == 1 or len(products) == 1:
        yield from (product() for product in products)
        return
    with matrix_threads(1), ThreadPoolExecutor(threads, "n4a_fast-products") as pool:
        yield from (given() for given in [begun(pool, product) for product in products])


def _product_into(target: Array, stack: Stack, spectra: Array) -> Array:
    """Predictions (chains, samples[, targets]) of a chunk of samples; gives the sum of each chain's, which tells
    whether all are finite.
    """
    weights, rows = stack.weights, np.empty((len(spectra), stack.weights.shape[1]))
    centred(stack.chains[0].statistic, spectra, stack.center, rows[:, :-1])
    rows[:, -1] = 1.0  # times the intercepts
    with np.errstate(all="ignore"):
        if target.ndim == 2:
            np.matmul(weights, rows.T, out=target)
        else:
            target[...] = (weights @ rows.T).reshape(len(target), target.shape[2], -1).transpose(0, 2, 1)
        return np.asarray(target.sum(axis=tuple(range(1, target.ndim))))
