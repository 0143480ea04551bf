"""Compiled chains in a store: remembered, stored, found again, dropped when they are stale or their chain is gone."""

from __future__ import annotations

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chemotools.scale import NormScaler
from helpers import DEADLINE, child, count, finish, read_line
from replay_chains import Aware, spectra, target
from replay_stores import begin, fitted_steps, plain, pls_chain, put_chain
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import MinMaxScaler, Normalizer, PowerTransformer, StandardScaler
from sklearn.svm import SVR, LinearSVR
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_info, threadpool_limits

from n4a_fast import WorkspaceStore, replay_chain, replay_chains
from n4a_fast.errors import ArtifactMissingError, InvalidInputError, NotFoundError, ReplayError
from n4a_fast.replay.fused.compiled import CompiledChain, content_hash
from n4a_fast.replay.fused.linear_operators import version_of
from n4a_fast.replay.serve import joined

Array = np.ndarray[Any, Any]
X = spectra(30, 20, seed=5)
y = target(X)
NEW = spectra(13, 20, seed=6)
CLOSE = {"rtol": 0.0, "atol": 1e-9}


def reopened(store: WorkspaceStore) -> WorkspaceStore:
    store.close()
    return WorkspaceStore(store.workspace_path)


def spoil_weights(store: WorkspaceStore) -> None:
    """Make stored compiled chains tell that they were used: they predict nothing but their intercept."""
    database = store._open().database
    with database.transaction():
        for name, recipe, weights in database.rows("SELECT chain_id, recipe, weights FROM compiled_chains"):
            none, spoilt = [0.0] * len(weights), json.loads(recipe)
            spoilt["digest"] = f"{content_hash(np.array(none))} {spoilt['digest'].split()[1]}"
            database.execute(
                "UPDATE compiled_chains SET weights = ?, recipe = ? WHERE chain_id = ?",
                (none, json.dumps(spoilt), name),
            )


# -- one chain ---------------------------------------------------------------------------------


def test_a_chain_is_replayed_again_as_the_first_time_and_as_the_plain_path_does(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    for _ in range(3):
        np.testing.assert_allclose(store.replay_chain(chain, NEW), plain(store, chain, NEW), **CLOSE)
        np.testing.assert_allclose(replay_chain(store, chain, NEW[:1]), plain(store, chain, NEW[:1]), **CLOSE)


@pytest.mark.parametrize(
    "choice",
    [
        {"folds": "all"},
        {"folds": [2, 0]},
        {"folds": 1},
        {"folds": "all", "fold_weights": [1, 2, 3]},
        {"folds": [2, 0], "fold_weights": {"2": 1.0, "fold_0": 3.0}},
        {"folds": "final"},
    ],
)
def test_folds_and_their_weights_are_honoured(store: WorkspaceStore, choice: dict[str, Any]) -> None:
    Z = X * 1.0
    models = {f"fold_{n}": PLSRegression(2).fit(Z[n::3], y[n::3]) for n in range(3)} | {"fold_final": Ridge().fit(Z, y)}
    chain = put_chain(store, begin(store), [], models)
    for _ in range(2):
        np.testing.assert_allclose(
            store.replay_chain(chain, NEW, **choice), plain(store, chain, NEW, **choice), **CLOSE
        )
        np.testing.assert_allclose(store.replay_chain(chain, NEW), plain(store, chain, NEW), **CLOSE)


def test_bad_spectra_get_the_plain_path_s_words_before_and_after_compiling(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    with_nan, with_inf = NEW.copy(), NEW.copy()
    with_nan[7, 3], with_inf[2, 0] = np.nan, -np.inf
    for _ in range(2):
        for bad, words in [
            (with_nan, "1 NaN value, the first in row 7"),
            (with_inf, "infinite value, the first in row 2"),
            (NEW[:, :-1], "was fitted on 20"),
            (NEW[0], "one sample"),
            (NEW[:0], "at least one row"),
            (NEW.astype(complex), "dtype complex"),
            (NEW.astype(object), "dtype object"),
            ([NEW, NEW], "has 2"),
        ]:
            with pytest.raises(InvalidInputError, match=words):
                store.replay_chain(chain, bad)
        with pytest.raises(InvalidInputError, match="one wavelength a column"):
            store.replay_chain(chain, NEW, np.arange(3.0))
        with pytest.raises(InvalidInputError, match="no probabilities"):
            store.replay_chain(chain, NEW, return_proba=True)
        store.replay_chain(chain, NEW, np.arange(20.0))


@pytest.mark.filterwarnings("ignore")
def test_constant_spectra_are_left_to_the_operator(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    store.replay_chain(chain, NEW)
    flat = np.vstack([NEW[:2], np.ones((1, 20))])
    with pytest.raises(ReplayError, match="gave 20 NaN or infinite values, the first in row 2"):
        store.replay_chain(chain, flat)


@pytest.mark.parametrize("make", [*(lambda norm=norm: Normalizer(norm) for norm in ("l1", "l2", "max")), NormScaler])
def test_spectra_next_to_nothing_are_left_to_the_operator(store: WorkspaceStore, make: Any) -> None:
    step = make().fit(X)
    pipeline, Z = begin(store), np.asarray(step.transform(X))
    chains = [put_chain(store, pipeline, [step], [Ridge(alpha).fit(Z, y)]) for alpha in (0.1, 1.0)]
    store.replay_chains(chains, NEW)
    assert store.replay_plan(chains[0]).compiled
    faint = np.vstack([NEW[:2], NEW[2:4] * 1e-16])  # scikit-learn divides these by 1
    expected = np.stack([plain(store, chain, faint) for chain in chains])
    np.testing.assert_allclose(store.replay_chains(chains, faint), expected, **CLOSE)
    np.testing.assert_allclose(store.replay_chain(chains[0], faint), expected[0], **CLOSE)


def test_steps_that_stay_plain_run_in_front_of_the_fused_ones(store: WorkspaceStore) -> None:
    steps, Z = fitted_steps(X, [PowerTransformer(), StandardScaler(), MinMaxScaler()])
    chain = put_chain(store, begin(store), steps, [Ridge().fit(Z, y)])
    expected = plain(store, chain, NEW)
    np.testing.assert_allclose(store.replay_chain(chain, NEW), expected, **CLOSE)
    report = store.replay_plan(chain)
    assert report.compiled
    assert [line.rpartition(": ")[2].partition(",")[0] for line in report.steps] == [
        "runs plainly",
        "fused",
        "fused",
        "fused",
    ]
    assert "PowerTransformer is not registered as linear" in str(report)
    with reopened(store) as again:
        for _ in range(2):
            np.testing.assert_allclose(again.replay_chain(chain, NEW), expected, **CLOSE)


def test_other_weights_of_a_chain_with_steps_in_front_do_not_become_the_usual_ones(store: WorkspaceStore) -> None:
    steps, Z = fitted_steps(X, [PowerTransformer()])
    chain = put_chain(store, begin(store), steps, [Ridge(alpha).fit(Z, y) for alpha in (0.1, 10.0)])
    for choice in ({"fold_weights": [1.0, 9.0]}, {}, {"folds": [1]}):
        for _ in range(2):
            np.testing.assert_allclose(
                store.replay_chains([chain], NEW, **choice)[0], plain(store, chain, NEW, **choice), **CLOSE
            )  # type: ignore[arg-type]
            np.testing.assert_allclose(
                store.replay_chain(chain, NEW, **choice), plain(store, chain, NEW, **choice), **CLOSE
            )


def test_operators_that_take_wavelengths_get_them(store: WorkspaceStore) -> None:
    chain = put_chain(store, begin(store), [Aware(), StandardScaler().fit(X)], [Ridge().fit(X, y)])
    axis = np.linspace(1.0, 2.0, 20)
    for wavelengths in (None, axis, None, axis):
        np.testing.assert_allclose(
            store.replay_chain(chain, NEW, wavelengths), plain(store, chain, NEW, wavelengths), **CLOSE
        )


def test_a_step_without_artifact_is_fused_too(store: WorkspaceStore) -> None:
    created = ["chemotools.derivative.SavitzkyGolay", {"window_length": 5, "polyorder": 2}]
    chain = put_chain(store, begin(store), [created, StandardScaler().fit(X)], [Ridge().fit(X, y)])
    np.testing.assert_allclose(store.replay_chain(chain, NEW), plain(store, chain, NEW), **CLOSE)
    assert "SavitzkyGolay): fused" in str(store.replay_plan(chain))


def test_a_plan_is_told_before_and_after_the_first_replay(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chain, forest = (
        pls_chain(store, pipeline, X, y),
        put_chain(store, pipeline, [], [RandomForestRegressor(2, random_state=0).fit(X, y)]),
    )
    assert "not looked at yet" in str(store.replay_plan(chain))
    report = store.replay_plan(chain, NEW)
    assert report.compiled
    assert report.error is not None
    assert report.error < 1e-11
    assert "row statistic snv(0)" in str(report)
    assert "fused with 3 folds" in str(report)
    told = store.replay_plan(forest, NEW)
    assert not told.compiled
    assert "RandomForestRegressor is not registered as linear" in str(told)


# -- kept in the store ---------------------------------------------------------------------------


def test_compiled_chains_are_found_again_without_their_objects(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chains = [pls_chain(store, pipeline, X, y, components) for components in (2, 3, 4)]
    expected = store.replay_chains(chains, NEW)
    paths = [
        store.get_artifact_path(name) for chain in chains for name in store.get_chain(chain)["fold_artifacts"].values()
    ]  # type: ignore[index]
    with reopened(store) as again:
        for path in paths:
            path.unlink(missing_ok=True)
        np.testing.assert_array_equal(again.replay_chains(chains, NEW), expected)
        np.testing.assert_allclose(again.replay_chain(chains[1], NEW), expected[1], **CLOSE)
        assert again.replay_plan(chains[2]).compiled
        with pytest.raises(ArtifactMissingError):
            again.replay_chain(chains[0], NEW, folds=[0])


def test_a_reader_uses_what_is_stored_and_stores_nothing(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    stored, other = pls_chain(store, pipeline, X, y), pls_chain(store, pipeline, X, y, 2)
    expected = store.replay_chains([stored, other], NEW)
    store.close()
    with WorkspaceStore(store.workspace_path) as writer:
        database = writer._open().database
        with database.transaction():
            database.execute("DELETE FROM compiled_chains WHERE chain_id = ?", (other,))
    with WorkspaceStore.open_readonly(store.workspace_path) as reader:
        np.testing.assert_allclose(reader.replay_chains([stored, other], NEW), expected, **CLOSE)
        np.testing.assert_allclose(reader.replay_chain(other, NEW), expected[1], **CLOSE)
    with WorkspaceStore(store.workspace_path) as writer:
        assert count(writer, "compiled_chains") == 1


@pytest.mark.parametrize(
    "change", ["made_with = 'n4a_fast==0.0.0'", "made_with = made_with || ' gone==1.0'", "sources = 'other'"]
)
@pytest.mark.long
def test_what_is_stale_is_made_again(store: WorkspaceStore, change: str) -> None:
    chain = pls_chain(store, begin(store), X, y)
    expected = store.replay_chain(chain, NEW)
    with reopened(store) as again:
        spoil_weights(again)
        assert np.ptp(again.replay_chain(chain, NEW)) == 0.0  # so what is stored is used
    with WorkspaceStore(store.workspace_path) as again:
        database = again._open().database
        with database.transaction():
            database.execute(f"UPDATE compiled_chains SET {change}")
        np.testing.assert_allclose(again.replay_chain(chain, NEW), expected, **CLOSE)
    with WorkspaceStore(store.workspace_path) as again:
        assert (
            again.sql("SELECT made_with FROM compiled_chains")["made_with"][0].split()[-1]
            == f"scikit-learn=={version_of('scikit-learn')}"
        )
        np.testing.assert_allclose(again.replay_chain(chain, NEW), expected, **CLOSE)


def tree_chain(store: WorkspaceStore, pipeline: str, X: Any, y: Any, depth: int = 2) -> str:
    """A chain that stays plain."""
    return put_chain(store, pipeline, [], [DecisionTreeRegressor(max_depth=depth, random_state=0).fit(X, y)])


@pytest.mark.parametrize("make", [pls_chain, tree_chain])
@pytest.mark.parametrize("way", ["delete_run", "fail_pipeline"])
def test_what_is_remembered_of_a_chain_goes_with_it(store: WorkspaceStore, way: str, make: Any) -> None:
    run = store.begin_run("r", {}, [])
    pipeline = store.begin_pipeline(run, "p", {}, [], "d", "h")
    chain = make(store, pipeline, X, y)
    kept = make(store, begin(store), X, y, 3)
    store.replay_chains([chain, kept], NEW)
    if way == "fail_pipeline":
        store.fail_pipeline(pipeline, "boom")
    else:
        store.delete_run(run)
    with pytest.raises(NotFoundError):
        store.replay_chain(chain, NEW)
    with pytest.raises(NotFoundError):
        store.replay_chains([kept, chain], NEW)
    assert store.replay_chain(kept, NEW).shape == (13,)
    with reopened(store) as again:
        stored = [kept] if make is pls_chain else []
        assert again.sql("SELECT chain_id FROM compiled_chains")["chain_id"].to_list() == stored
        assert count(again, "compiled_arrays") == len(stored)


@pytest.mark.parametrize("make", [pls_chain, tree_chain])
def test_a_chain_of_a_block_that_was_rolled_back_is_gone(store: WorkspaceStore, make: Any) -> None:
    pipeline = begin(store)
    chains = []

    def block() -> None:
        with store.transaction():
            chains.append(make(store, pipeline, X, y))
            assert store.replay_chains(chains, NEW).shape == (1, 13)
            assert store.replay_chain(chains[0], NEW).shape == (13,)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        block()
    for replay in (lambda: store.replay_chain(chains[0], NEW), lambda: store.replay_chains(chains, NEW)):
        with pytest.raises(NotFoundError):
            replay()


def test_a_chain_that_another_process_deletes_is_gone(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    pipeline = store.begin_pipeline(run, "p", {}, [], "d", "h")
    chains = [make(store, pipeline, X, y) for make in (pls_chain, tree_chain)]
    kept = pls_chain(store, begin(store), X, y)
    store.complete_run(run, {})
    store.replay_chains([*chains, kept], NEW)
    expected = store.replay_chain(kept, NEW)
    code = (
        "import sys\nfrom n4a_fast import WorkspaceStore\nwith WorkspaceStore(sys.argv[1]) as store:\n   "
        " print(store.delete_run(sys.argv[2]))"
    )
    assert int(finish(child(code, store.workspace_path, run))) >= 3
    for chain in chains:
        with pytest.raises(NotFoundError):
            store.replay_chains([chain], NEW)
    np.testing.assert_array_equal(store.replay_chain(kept, NEW), expected)


def test_what_another_process_compiled_is_used(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    store.flush()
    code = """
import sys, numpy as np
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    store.replay_chain(sys.argv[2], np.load(sys.argv[3]))
print("stored", flush=True)
"""
    path = store.workspace_path / "X.npy"
    np.save(path, NEW)
    process = child(code, store.workspace_path, chain, path)
    assert read_line(process) == "stored"
    finish(process)
    assert store.replay_plan(chain).compiled


# -- many chains ---------------------------------------------------------------------------------


def several_chains(store: WorkspaceStore) -> list[str]:
    """Chains of all kinds: fused behind two statistics and none, behind plain steps, radial kernels, forests."""
    pipeline = begin(store)
    scaled, Z = fitted_steps(X, [StandardScaler()])
    power, P = fitted_steps(X, [PowerTransformer()])
    chains = [pls_chain(store, pipeline, X, y, components, deriv) for components in (2, 3) for deriv in (0, 1)]
    chains += [
        put_chain(store, pipeline, scaled, [Ridge(alpha).fit(Z[n::2], y[n::2]) for n in range(2)])
        for alpha in (0.1, 1.0)
    ]
    chains += [put_chain(store, pipeline, power, [Ridge(alpha).fit(P, y)]) for alpha in (0.1, 1.0)]
    chains += [
        put_chain(store, pipeline, scaled, [SVR(C=c).fit(Z[n::2], y[n::2]) for n in range(2)]) for c in (1.0, 10.0)
    ]
    chains += [
        put_chain(store, pipeline, scaled, [RandomForestRegressor(3, random_state=n).fit(Z, y) for n in range(2)])
        for _ in range(2)
    ]
    return [chains[number] for number in np.random.default_rng(0).permutation(len(chains))]


@pytest.mark.long
def test_many_chains_are_rows_in_order(store: WorkspaceStore) -> None:
    chains = several_chains(store)
    expected = np.stack([plain(store, chain, NEW) for chain in chains])
    found = store.replay_chains(chains, NEW)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_allclose(
        store.replay_chains([chains[3], chains[0], chains[3]], NEW), expected[[3, 0, 3]], **CLOSE
    )
    np.testing.assert_allclose(replay_chains(store, chains, NEW, np.arange(20.0)), expected, **CLOSE)
    with reopened(store) as again:
        np.testing.assert_allclose(again.replay_chains(chains, np.asfortranarray(NEW)), expected, **CLOSE)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("max_bytes", [1, 5_000, 100_000])
def test_a_bound_on_memory_and_threads_change_no_value(store: WorkspaceStore, max_bytes: int, threads: int) -> None:
    chains = several_chains(store)
    np.testing.assert_allclose(
        store.replay_chains(chains, NEW, max_bytes=max_bytes, threads=threads),
        store.replay_chains(chains, NEW),
        **CLOSE,
    )


def test_matrix_products_run_in_as_many_threads_as_asked_for(store: WorkspaceStore) -> None:
    chains, seen = several_chains(store), list[int]()

    def look(_done: int, _total: int) -> None:
        seen.append(max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"))

    with threadpool_limits(2, user_api="blas"):
        found = [store.replay_chains(chains, NEW, threads=threads, progress=look) for threads in (1, 2)]
    assert set(seen) == {1, 2}
    np.testing.assert_allclose(found[1], found[0], **CLOSE)


def test_joined_weights_serve_the_chains_that_they_were_joined_from_alone(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    a, b, c = (pls_chain(store, pipeline, X, y, components) for components in (2, 3, 4))
    expected = {chain: plain(store, chain, NEW) for chain in (a, b, c)}
    for asked in ([a, b], [a, b], [a, c], [b, a], [a, b]):  # the same first chain, as many: found under one key
        np.testing.assert_allclose(
            store.replay_chains(asked, NEW), np.stack([expected[chain] for chain in asked]), **CLOSE
        )


def test_chains_first_seen_with_other_spectra_are_joined_in_blocks(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chains = [pls_chain(store, pipeline, X, y, components) for components in (2, 3, 4)]
    for number, chain in enumerate(chains):
        store.replay_chain(chain, NEW[number : number + 1] + number)
    expected = np.stack([plain(store, chain, NEW) for chain in chains])
    for max_bytes in (1, 2**10, 2**28):
        np.testing.assert_allclose(store.replay_chains(chains, NEW, max_bytes=max_bytes), expected, **CLOSE)


@pytest.mark.parametrize("model", [Ridge(1e-12), LinearSVR(C=1e3, random_state=0), SVR()], ids=lambda model: str(model))
@pytest.mark.parametrize("first", [1e4, 1.0], ids=["counts", "ones"])
def test_spectra_unlike_the_training_s_cost_later_ones_no_digits(
    store: WorkspaceStore, model: Any, first: float
) -> None:
    tiny = 1e-8 * np.diff(X, axis=1)  # as second derivatives of a fine axis are
    scaler = StandardScaler().fit(tiny)
    models = [clone(model).fit(scaler.transform(tiny)[fold::3], y[fold::3]) for fold in range(3)]
    chains = [put_chain(store, begin(store), [scaler], models) for _ in range(2)]
    store.replay_chain(chains[0], first + X[:4, 1:])
    expected = plain(store, chains[0], tiny)
    for found in (store.replay_chain(chains[0], tiny), *store.replay_chains(chains, tiny)):
        assert np.abs(found - expected).max() <= 1e-13 * np.abs(expected).max()


def test_what_is_remembered_of_joined_weights_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_REMEMBERED_BYTES", 4000)
    made = joined.Joined()
    chains = [
        CompiledChain(str(n), 0, (), 20, None, np.zeros(20), np.full((1, 20), float(n)), np.array([n + 0.5]), 0.0, ())
        for n in range(40)
    ]
    for block in (chains[:10], chains[:11], chains, chains[10:20]):
        stack = made.of(block)
        assert made.of(block) is stack or len(block) == 40  # too large to be kept
        found = stack.weights
        np.testing.assert_array_equal(found[:, 0], [float(chain.chain_id) for chain in block])
        np.testing.assert_array_equal(found[:, -1], found[:, 0] + 0.5)
    assert made._stacks._used <= 4000


def test_processes_share_the_chains_that_are_not_linear(store: WorkspaceStore) -> None:
    chains = several_chains(store)
    expected = store.replay_chains(chains, NEW)
    np.testing.assert_array_equal(store.replay_chains(chains, NEW, n_jobs=2), expected)


@pytest.mark.parametrize("model", [RandomForestRegressor(3, random_state=0), DecisionTreeRegressor(random_state=0)])
def test_workers_share_chains_inside_a_transaction_too(store: WorkspaceStore, model: Any) -> None:
    pipeline = begin(store)
    with store.transaction():
        chains = [
            put_chain(store, pipeline, [StandardScaler().fit(X)], [clone(model).set_params(max_depth=depth).fit(X, y)])
            for depth in (1, 2, 3)
        ]
        found = store.replay_chains(chains, NEW, n_jobs=2)
    np.testing.assert_allclose(found, np.stack([plain(store, chain, NEW) for chain in chains]), **CLOSE)


def test_progress_is_told_up_to_the_end(store: WorkspaceStore) -> None:
    told: list[tuple[int, int]] = []
    chains = several_chains(store)
    store.replay_chains(chains, NEW, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(chains), len(chains))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_several_targets_and_probabilities_are_a_third_axis(store: WorkspaceStore) -> None:
    pipeline, Y, labels = begin(store), np.stack([y, y**2], axis=1), np.where(y > np.median(y), "high", "low")
    both = [put_chain(store, pipeline, [], [PLSRegression(c).fit(X, Y)]) for c in (2, 3)]
    classes = [
        put_chain(store, pipeline, [], [RandomForestClassifier(5, random_state=n).fit(X, labels)]) for n in range(2)
    ]
    np.testing.assert_allclose(
        store.replay_chains(both, NEW), np.stack([plain(store, chain, NEW) for chain in both]), **CLOSE
    )
    np.testing.assert_array_equal(
        store.replay_chains(classes, NEW), np.stack([plain(store, chain, NEW) for chain in classes])
    )
    proba = store.replay_chains(classes, NEW, return_proba=True)
    assert proba.shape == (2, 13, 2)
    np.testing.assert_allclose(proba.sum(axis=2), 1.0)
    with pytest.raises(InvalidInputError, match="numbers and labels"):
        store.replay_chains([classes[0], put_chain(store, pipeline, [], [Ridge().fit(X, y)])], NEW)
    with pytest.raises(InvalidInputError, match="rows of one array"):
        store.replay_chains([both[0], put_chain(store, pipeline, [], [Ridge().fit(X, y)])], NEW)


def test_wrong_arguments_are_refused(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    for ids, options, words in [
        (chain, {}, "sequence of chain ids"),
        ([], {}, "is empty"),
        ([5], {}, "each of chain_ids must be text, got int"),
        ([chain], {"threads": 0}, "must be positive"),
        ([chain], {"n_jobs": 0}, "not zero"),
        ([chain], {"folds": [7]}, "no fold '7'"),
    ]:
        with pytest.raises(InvalidInputError, match=words):
            store.replay_chains(ids, NEW, **options)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="nobody"):
        store.replay_chains([chain, "nobody"], NEW)
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="was fitted on 20"):
            store.replay_chains([chain], NEW[:, :-1])


def test_a_model_that_is_missing_is_named_before_any_work(store: WorkspaceStore) -> None:
    chains = several_chains(store)
    forest = put_chain(store, begin(store), [], [RandomForestRegressor(3, random_state=n).fit(X, y) for n in range(2)])
    store.replay_chains([*chains, forest], NEW)
    chain = store.get_chain(forest)
    assert chain is not None
    store.get_artifact_path(chain["fold_artifacts"]["fold_1"]).unlink()
    done: list[int] = []
    with pytest.raises(ArtifactMissingError, match=chain["fold_artifacts"]["fold_1"]):
        store.replay_chains([*chains, forest], NEW, progress=lambda so_far, _: done.append(so_far))
    with pytest.raises(InvalidInputError, match="no fold '7'"):
        store.replay_chains([*chains, forest], NEW, folds=[7], progress=lambda so_far, _: done.append(so_far))
    assert not done
    assert store.replay_chains([*chains, forest], NEW, folds=[0]).shape == (len(chains) + 1, 13)


def test_threads_replay_at_the_same_time(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chains = [pls_chain(store, pipeline, X, y, components) for components in (1, 2, 3, 4)]
    expected = np.stack([plain(store, chain, NEW) for chain in chains])

    def work(number: int) -> Array:
        return (
            np.stack([store.replay_chain(chain, NEW) for chain in chains])
            if number % 2
            else store.replay_chains(chains, NEW)
        )

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(12)):
            np.testing.assert_allclose(found, expected, **CLOSE)


def _replayed_by_child(store: WorkspaceStore, chain: str, results: Any) -> None:
    results.put(store.replay_chain(chain, NEW))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_replays_too(store: WorkspaceStore) -> None:
    chain = pls_chain(store, begin(store), X, y)
    expected = store.replay_chain(chain, NEW)
    store.flush()
    context = get_context("fork")
    results = context.Queue()
    process = context.Process(target=_replayed_by_child, args=(store, chain, results))
    process.start()
    np.testing.assert_array_equal(results.get(timeout=DEADLINE), expected)
    process.join(DEADLINE)


def test_several_sources_are_joined_and_fused(store: WorkspaceStore) -> None:
    other = X[:, ::2] * 2.0
    left, right = StandardScaler().fit(X), MinMaxScaler().fit(other)
    ids = [store.save_artifact(one, "scaler", "transformer", "joblib") for one in (left, right)]
    joined = np.hstack([left.transform(X), right.transform(other)])
    models = {
        f"fold_{n}": store.save_artifact(Ridge(n + 1.0).fit(joined, y), "Ridge", "model", "joblib") for n in range(2)
    }
    steps = [{"step_idx": 1, "operator_class": "scaler"}, {"step_idx": 2, "operator_class": "Ridge"}]
    shared = {"1": ids, "_source_map": {"1": {"0": [ids[0]], "1": [ids[1]]}}}
    chain = store.save_chain(begin(store), steps, 2, "Ridge", "", "per_fold", models, shared)
    new = [NEW, NEW[:, ::2] * 2.0]
    for number in range(2):
        opened = store if number == 0 else reopened(store)
        for rows in (1, 13):
            given = [block[:rows] for block in new]
            np.testing.assert_allclose(opened.replay_chain(chain, given), plain(opened, chain, given), **CLOSE)
            np.testing.assert_allclose(
                opened.replay_chains([chain, chain], given)[1], plain(opened, chain, given), **CLOSE
            )
        assert opened.replay_plan(chain).compiled
        with pytest.raises(InvalidInputError, match="joins 2 sources"):
            opened.replay_chain(chain, NEW)
    opened.close()


def test_a_model_whose_class_is_not_here_is_named(
    store: WorkspaceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_goes.py").write_text("class Model:\n    def predict(self, X): return X[:, 0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("module_that_goes")
    chain = put_chain(store, begin(store), [], [module.Model()])
    assert store.replay_chain(chain, NEW).shape == (13,)
    (tmp_path / "module_that_goes.py").unlink()
    monkeypatch.delitem(sys.modules, "module_that_goes")
    with reopened(store) as again:
        for call in (lambda: again.replay_chain(chain, NEW), lambda: again.replay_chains([chain], NEW)):
            with pytest.raises(ReplayError, match=r"step 1 \(model\) .* cannot be loaded here .*module_that_goes"):
                call()


def test_folds_that_know_different_classes_are_refused(store: WorkspaceStore) -> None:
    labels = np.arange(30) % 3
    folds = [
        RandomForestClassifier(2, random_state=0).fit(X[labels != missing], labels[labels != missing])
        for missing in (0, 1)
    ]
    chain = put_chain(store, begin(store), [], folds)
    others, done = several_chains(store), list[int]()
    told = lambda so_far, _: done.append(so_far)  # noqa: E731
    for call in (
        lambda: store.replay_chain(chain, NEW),
        lambda: store.replay_chains([*others, chain], NEW, progress=told),
    ):
        with pytest.raises(ReplayError, match="know different classes"):
            call()
    assert not done


def test_a_replay_does_not_fail_because_its_compiled_chain_cannot_be_stored(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chains = [pls_chain(store, pipeline, X, y, components) for components in (2, 3)]
    store.flush()
    expected = store.replay_chains(chains, NEW)
    workspace = store._open()
    with workspace.database.transaction():
        workspace.database.execute("ALTER TABLE compiled_chains RENAME TO elsewhere")
    workspace.replayer.keep()
    with workspace.database.transaction():
        workspace.database.execute("ALTER TABLE elsewhere RENAME TO compiled_chains")
    with reopened(store) as again:
        assert count(again, "compiled_chains") == 2
        np.testing.assert_allclose(again.replay_chains(chains, NEW), expected, **CLOSE)
