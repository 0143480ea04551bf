"""Replay for one workspace: compiled chains where there are any, the plain path for the rest.

Owns what is remembered between calls: compiled chains by id, bounded in bytes, each with the state
of the store file in which its chain was last seen. Promises that a chain deleted here or by another
process is not replayed from memory, and that every answer is what the plain path gives, within the
tolerance of `fuse`, or its error. Leaves many chains at once to `batch`, storing to `persisted`.

A. Another process cannot change the store without changing the size or time of the file or its log,
   so two calls of stat (3 us) stand for a query (500 us) as long as nothing has been written.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from n4a_fast.artifacts.loader import ArtifactReader, FilePlace, places_of
from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreError
from n4a_fast.replay.fused.compile import compile_chain, refusal
from n4a_fast.replay.fused.compiled import WHOLE, CompiledChain, PlainChain, plain_chain
from n4a_fast.replay.fused.stages import Bench, Bounded, front_of
from n4a_fast.replay.plain.combine import common_classes
from n4a_fast.replay.plain.execute import execute, plain_features
from n4a_fast.replay.plain.inputs import read_spectra, read_wavelengths
from n4a_fast.replay.plan.folds import Folds, FoldWeights, choose, weights_of
from n4a_fast.replay.plan.load import load_chain
from n4a_fast.replay.plan.replay_plan import ReplayPlan
from n4a_fast.replay.plan.tags import classifies
from n4a_fast.replay.serve.forests import StandIns, quickened
from n4a_fast.replay.serve.joined import Joined
from n4a_fast.replay.serve.persisted import CompiledChains
from n4a_fast.tables.chains import artifact_ids
from n4a_fast.tables.table_set import TableSet
from n4a_fast.values import checks

Array: TypeAlias = NDArray[np.float64]
State: TypeAlias = tuple[int, ...]
V = TypeVar("V")

_REMEMBERED_BYTES = 256 * 2**20
_CHAINS, _PLACES = 1024, 16384  # remembered of chains that stay plain: a query takes as long as two forests
_WRITE_AT = 256  # compiled chains that wait to be stored; the rest is written when the store closes
_DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which folds predict, and with what weights."""

    folds: Folds = "auto"
    fold_weights: FoldWeights | None = None

    @property
    def key(self) -> bytes | None:
        """Equal for equal choices; None for the usual one."""
        usual = isinstance(self.folds, str) and self.folds == "auto" and self.fold_weights is None
        try:
            return None if usual else pickle.dumps((self.folds, self.fold_weights))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"folds and fold_weights must be texts, numbers or lists of them: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class _Known:
    """A chain and the state of the store in which it was there."""

    chain: CompiledChain | PlainChain
    seen: State


class _Read(Generic[V]):
    """What the store has of ids, remembered for as long as it is in the state in which it was read."""

    def __init__(self, most: int) -> None:
        self._kept: Bounded[tuple[State, V]] = Bounded(most, lambda _: 1)

    def of(self, ids: Iterable[str], state: State, read: Callable[[list[str]], Mapping[str, V]]) -> dict[str, V]:
        """By id, those that there are; `state` is that of the store before `read` is asked for the rest."""
        found, unknown = {}, []
        for one in ids:
            kept = self._kept.get(one)
            if kept is not None and kept[0] == state:
                found[one] = kept[1]
            else:
                unknown.append(one)
        for one, value in read(unknown).items() if unknown else ():
            found[one] = self._kept.put(one, (state, value))[1]
        return found


class Replayer:
    """Replays of one workspace."""

    def __init__(self, database: Database, tables: TableSet) -> None:
        self._database, self._tables, self._persisted = database, tables, CompiledChains(database)
        self._file, self._log = str(database.path), f"{database.path}.wal"
        self._remembered: Bounded[_Known] = Bounded(
            _REMEMBERED_BYTES, lambda known: getattr(known.chain, "nbytes", 1024)
        )
        self.joined, self.stand_ins = Joined(), StandIns()
        self._rows: _Read[dict[str, Any]] = _Read(_CHAINS)
        self._places: _Read[FilePlace] = _Read(_PLACES)

    def load_artifact(self, artifact_id: str) -> Any:
        """The stored object, shared by all who ask for it: they must not change it."""
        with self._database.lock:
            return self._tables.artifacts.shared(artifact_id)

    def keep(self) -> None:
        """Store the compiled chains that wait for it; if that cannot be, they wait on: they are derived, and a replay
        must not fail for them.
        """
        with self._database.lock:
            if len(self._persisted):
                with suppress(StoreError):  # what stands in the way of other rows too is told by their own flush
                    with self._database.transaction():
                        self._persisted.write_in_transaction()
                    self._persisted.clear()

    def replay(self, chain_id: str, X: Any, wavelengths: Any, choice: Choice, return_proba: bool) -> NDArray[Any]:
        """Predictions of one chain."""
        chain_id = checks.text(chain_id, "chain_id")
        known = self._remembered.get((chain_id, choice.key))
        if known is not None and known.seen == self.state() and isinstance(known.chain, CompiledChain):
            found = self.fused(known.chain, X, wavelengths, return_proba)
            if found is not None:
                return found
        return self._replay_unprepared(chain_id, X, wavelengths, choice, return_proba)

    def _replay_unprepared(
        self, chain_id: str, X: Any, wavelengths: Any, choice: Choice, return_proba: bool
    ) -> NDArray[Any]:
        state = self.state()
        known = self.recall([chain_id], choice).get(chain_id)
        if isinstance(known, CompiledChain) and (found := self.fused(known, X, wavelengths, return_proba)) is not None:
            return found
        bench = Bench(self.load_artifact)
        plan = self.load_plan(self.require([chain_id])[chain_id], bench, choice.folds)
        if known is None:
            compiled = self.compile(plan, X, wavelengths, choice, bench, state)
            if (
                isinstance(compiled, CompiledChain)
                and (found := self.fused(compiled, X, wavelengths, return_proba)) is not None
            ):
                return found
        return execute(
            quickened(plan, self.stand_ins),
            X,
            wavelengths,
            folds=choice.folds,
            fold_weights=choice.fold_weights,
            return_proba=return_proba,
        )

    def require(self, chain_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of these chains; NotFoundError names the first that is missing."""
        with self._database.lock:
            rows = self._rows.of(chain_ids, self.state(), self._tables.chains.find_many)
        for chain_id in chain_ids:
            if chain_id not in rows:
                raise NotFoundError("chain", chain_id)
        return rows

    def load_plan(self, chain: Mapping[str, Any], bench: Bench, folds: Folds) -> ReplayPlan:
        """The plan of a chain; operators that several chains share are loaded once on this bench."""
        return load_chain(chain, loader_for(chain, bench), folds=folds, resolve=self.class_named)

    def load_steps(self, chain: Mapping[str, Any], bench: Bench) -> ReplayPlan:
        """The plan of a chain without its models."""
        return load_chain(chain, loader_for(chain, bench), models=False, resolve=self.class_named)

    @property
    def class_named(self) -> Callable[[str], Any]:
        """Gives the class of a step that has no artifact, as far as the store trusts it; it can be pickled."""
        return self._tables.artifacts.trust.class_named

    def reader(self, artifact_ids: Sequence[str]) -> ArtifactReader:
        """Loads these artifacts in another process."""
        artifacts = self._tables.artifacts
        with self._database.lock:
            places = self._places.of(set(artifact_ids), self.state(), partial(places_of, self._database))
        return ArtifactReader(artifacts.files.root, artifacts.trust, places)

    def recall(self, chain_ids: Iterable[str], choice: Choice) -> dict[str, CompiledChain | PlainChain]:
        """What is known of these chains, from memory or the store; chains that are gone are left out."""
        key, state = choice.key, self.state()
        found: dict[str, CompiledChain | PlainChain] = {}
        old: dict[str, CompiledChain | PlainChain] = {}
        unknown = []
        for chain_id in chain_ids:
            known = self._remembered.get((chain_id, key))
            if known is None:
                unknown.append(chain_id)
            else:
                (found if known.seen == state else old)[chain_id] = known.chain
        with self._database.lock:
            there = self._tables.chains.stored(list(old)) if old else set()
            loaded = self._persisted.load(unknown) if unknown and key is None else {}
        found |= loaded | {chain_id: chain for chain_id, chain in old.items() if chain_id in there}
        for chain_id in (*old, *loaded):
            self._remembered.drop((chain_id, key))
            if chain_id in found:
                self._remember(found[chain_id], key, state)
        return found

    def prepare(
        self, chain: Mapping[str, Any], X: Any, wavelengths: Any, choice: Choice, bench: Bench, state: State
    ) -> CompiledChain | PlainChain:
        """Like `compile`, with the models of all folds loaded only if the first one may fuse, or classifies: then they
        must know the same classes.
        """
        plan = self.load_steps(chain, bench)
        first = choose(tuple(plan.model.fold_ids), choice.folds)[0]
        alone = self.load_plan(chain, bench, [first])
        plain = refusal(alone)
        if plain is not None:
            if classifies(alone.model.models[first]):
                common_classes(self.load_plan(chain, bench, choice.folds).model.models, plan.model.place)
            self._remember(plain, choice.key, state)
            return plain
        compiled = self.compile(self.load_plan(chain, bench, choice.folds), X, wavelengths, choice, bench, state)
        if isinstance(compiled, CompiledChain) and compiled.plan is not None:  # of many chains, operators are not kept
            compiled = replace(compiled, plan=None)
            self._remember(compiled, choice.key, state)
        return compiled

    def compile(
        self, plan: ReplayPlan, X: Any, wavelengths: Any, choice: Choice, bench: Bench, state: State
    ) -> CompiledChain | PlainChain:
        """The chain compiled on X, remembered, and kept for later processes; raises the plain path's error for X.

        `state` is that of the store before the chain was read.
        """
        weights = weights_of(choose(tuple(plan.model.fold_ids), choice.folds), choice.fold_weights)
        try:
            compiled = compile_chain(plan, weights, X, wavelengths, bench)
        except StoreError as error:
            execute(
                plan, X, wavelengths, folds=choice.folds, fold_weights=choice.fold_weights
            )  # says it for all rows of X
            compiled = plain_chain(plan, (f"not fused: {error}",))
        self._remember(compiled, choice.key, state)
        if choice.key is None and isinstance(compiled, CompiledChain):
            with self._database.lock:
                self._persisted.put(compiled)
                if len(self._persisted) >= _WRITE_AT:
                    self.keep()
        return compiled

    def fused(self, compiled: CompiledChain, X: Any, wavelengths: Any, return_proba: bool) -> NDArray[Any] | None:
        """Predictions of a compiled chain; None where the plain path must have its say."""
        spectra = self.spectra_for(compiled, X, wavelengths) if compiled.answers(return_proba) else None
        return None if spectra is None else compiled.answer(spectra, return_proba)

    def spectra_for(
        self, compiled: CompiledChain, X: Any, wavelengths: Any, bench: Bench | None = None
    ) -> Array | None:
        """What the compiled part of a chain is given, its stages in front run plainly; None for spectra of another
        width.

        Spectra that need no copy are not searched for infinite values either: these show in the predictions.
        """
        if (
            compiled.start == 0
            and wavelengths is None
            and type(X) is np.ndarray
            and X.dtype == _DOUBLE
            and X.ndim == 2
            and X.flags.c_contiguous
        ):
            return X if len(X) and X.shape[1] == compiled.n_features and compiled.n_sources == 1 else None
        blocks = read_spectra(compiled, X)
        axes = read_wavelengths(compiled, wavelengths, blocks)
        if sum(block.shape[1] for block in blocks) != compiled.n_features:
            return None
        if compiled.start == 0:
            return blocks[0]
        keep, bench = bench is None, bench or Bench(self.load_artifact)
        plan = compiled.plan or self._with_plan(compiled, bench, keep)
        if compiled.start == WHOLE:
            left = plain_features(plan, X, wavelengths)[0]
        else:
            left = bench.after(front_of(plan, compiled.prefix), blocks[0], axes[0], f"X{compiled.source_index}")
        return left if left.shape[1] == compiled.width else None  # or it was stored by somebody else

    def _with_plan(self, compiled: CompiledChain, bench: Bench, keep: bool) -> ReplayPlan:
        """The operators of a chain that was compiled without keeping them, or by another process."""
        state = self.state()
        chain = self.require([compiled.chain_id])[compiled.chain_id]
        plan = self.load_steps(chain, bench)
        known = self._remembered.get((compiled.chain_id, None))
        if keep and known is not None and known.chain is compiled:  # not one of other folds
            self._remember(replace(compiled, plan=plan), None, state)
        return plan

    def _remember(self, chain: CompiledChain | PlainChain, key: bytes | None, state: State) -> None:
        self._remembered.put((chain.chain_id, key), _Known(chain, state))

    def state(self) -> State:
        """What changes whenever a chain may have gone."""
        try:
            file = os.stat(self._file)
        except OSError:
            return (self._tables.generation, -1)
        try:
            log = os.stat(self._log)
        except OSError:
            return (self._tables.generation, file.st_mtime_ns, file.st_size)
        return (self._tables.generation, file.st_mtime_ns, file.st_size, log.st_mtime_ns, log.st_size)


def loader_for(chain: Mapping[str, Any], bench: Bench) -> Callable[[str], Any]:
    """Loads what the chain refers to, its models anew each time."""
    shared = (chain.get("shared_artifacts") or {}).get(str(chain["model_step_idx"]))
    return bench.loader(frozenset((*artifact_ids(chain["fold_artifacts"]), *artifact_ids(shared))))
