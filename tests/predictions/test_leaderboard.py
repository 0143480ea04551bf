"""The one ranking: which chain is best, in which direction, and that every surface says so."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
from helpers import Sweep, begin_pipeline, child, examples, finish, predict, save_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import get_scorer_names

from n4a_fast import WorkspaceStore
from n4a_fast.errors import AmbiguousError, InvalidInputError, NotFoundError, ReadOnlyError, UnknownDirectionError
from n4a_fast.predictions.ranking import RULE
from n4a_fast.values.directions import known_direction

NAN = math.nan


def save_folds(
    store: WorkspaceStore,
    run: str,
    name: str,
    folds: list[float | None],
    *,
    metric: str = "accuracy",
    ended: str = "completed",
    dataset: str = "corn",
    models: int = 3,
) -> str:
    """A pipeline with one chain and a validation and a test score for each fold; the chain's id."""
    pipeline = begin_pipeline(store, run, name, dataset)
    chain = save_chain(store, pipeline, fold_artifacts={f"fold_{fold}": "model" for fold in range(models)})
    for fold, score in enumerate(folds):
        for partition in ("train", "val", "test"):
            predict(
                store,
                pipeline,
                chain,
                fold_id=str(fold),
                partition=partition,
                val_score=score,
                test_score=0.5,
                metric=metric,
                model_name=name,
                dataset_name=dataset,
                scores={"val": {metric: score, "r2": None if score is None else 1 - score}},
            )
    if ended == "completed":
        store.complete_pipeline(pipeline, 0.0, 0.0, metric, 1)
    return chain


@pytest.fixture
def chains(store: WorkspaceStore) -> dict[str, str]:
    """Chains of all sorts by accuracy; the best is of a failed run."""
    run, broken = (store.begin_run(name, {}, [{"name": "corn"}]) for name in ("nightly", "broken"))
    found = {
        "lucky fold": save_folds(store, run, "lucky fold", [0.99, 0.6, 0.6]),
        "steady": save_folds(store, run, "steady", [0.9, 0.91, 0.92]),
        "diverged": save_folds(store, run, "diverged", [0.3, 0.3, 0.33]),
        "one NaN fold": save_folds(store, run, "one NaN fold", [0.99, NAN, 0.99]),
        "half done": save_folds(store, run, "half done", [0.999], ended="running"),
        "one fold gone": save_folds(store, run, "one fold gone", [0.98, 0.98]),
        "of a failed run": save_folds(store, broken, "of a failed run", [0.95, 0.96, 0.99]),
    }
    steady = store.get_chain(found["steady"])
    assert steady is not None
    for fold in ("avg", "w_avg"):  # averages are predictions of their own, and better than any fold
        predict(store, steady["pipeline_id"], found["steady"], fold_id=fold, val_score=1.0, metric="accuracy")
    lucky = store.get_chain(found["lucky fold"])
    assert lucky is not None
    predict(
        store,
        lucky["pipeline_id"],
        found["lucky fold"],
        fold_id="final",
        partition="test",
        refit_context="standalone",
        val_score=1.0,
        test_score=0.77,
        metric="accuracy",
    )
    store.fail_run(broken, "out of memory")
    return found


def names(store: WorkspaceStore, chains: dict[str, str], **question: object) -> list[str]:
    by_id = {chain: name for name, chain in chains.items()}
    return [by_id[chain] for chain in store.leaderboard(**question).frame["chain_id"]]  # type: ignore[arg-type]


def test_chains_are_ranked_by_the_mean_of_their_folds_and_incomplete_ones_come_last(
    store: WorkspaceStore, chains: dict[str, str]
) -> None:
    board = store.leaderboard()
    assert names(store, chains) == [
        "of a failed run",
        "steady",
        "lucky fold",
        "diverged",
        "one NaN fold",
        "one fold gone",
    ]
    rows = board.frame
    assert rows["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    assert rows["val_score"].to_list() == [pytest.approx(x) for x in (2.9 / 3, 0.91, 0.73, 0.31)] + [None, None]
    assert rows["missing_folds"].to_list() == [0, 0, 0, 0, 1, 1]
    assert rows["run_status"][0] == "failed"
    assert rows.filter(pl.col("chain_id") == chains["lucky fold"])["final_score"].to_list() == [0.77]
    assert (board.boards[0].chains, board.boards[0].incomplete, board.boards[0].running) == (6, 2, 1)


def test_running_pipelines_count_only_when_asked_for(store: WorkspaceStore, chains: dict[str, str]) -> None:
    assert "half done" not in names(store, chains)
    assert "half done" in names(store, chains, include_running=True)


def test_the_board_may_be_cut_grouped_filtered_and_ordered_by_another_score(
    store: WorkspaceStore, chains: dict[str, str]
) -> None:
    assert names(store, chains, n=2) == ["of a failed run", "steady"]
    assert names(store, chains, run="nightly", n=1) == ["steady"]
    assert names(store, chains, by="model") == ["of a failed run"]  # all are of one class
    assert names(store, chains, where="val_score < 0.9", n=1) == ["lucky fold"]
    assert names(store, chains, score="final", n=1) == ["lucky fold"]
    assert names(store, chains, higher_is_better=False, n=1) == ["diverged"]
    assert names(store, chains, dataset="wheat") == []


def test_a_condition_reads_and_nothing_else(store: WorkspaceStore, chains: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        store.leaderboard(where="true) SELECT 1; DELETE FROM runs; --")
    assert store.list_runs().height == 2


def test_a_score_that_predictions_hold_ranks_too(store: WorkspaceStore, chains: dict[str, str]) -> None:
    assert names(store, chains, metric="r2", n=2) == ["diverged", "lucky fold"]
    assert store.leaderboard("r2").frame["val_score"][0] == pytest.approx(0.69)
    with pytest.raises(InvalidInputError, match="no prediction has a score 'acuracy'; the workspace is scored by"):
        store.leaderboard("acuracy")


def test_data_sets_and_metrics_are_never_mixed(store: WorkspaceStore, chains: dict[str, str]) -> None:
    run = store.begin_run("other", {}, [])
    save_folds(store, run, "wheat", [1.0, 1.0, 1.0], dataset="wheat")
    save_folds(store, run, "by rmse", [0.001, 0.001, 0.001], metric="rmse")
    boards = store.leaderboard(n=1).boards
    assert [(board.dataset, board.metric, board.higher_is_better) for board in boards] == [
        ("corn", "accuracy", True),
        ("corn", "rmse", False),
        ("wheat", "accuracy", True),
    ]
    with pytest.raises(InvalidInputError, match="several boards .*give dataset= or metric="):
        _ = store.leaderboard().best


def test_rmsecv_is_pooled_over_the_validation_samples(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold, (score, samples) in enumerate([(0.1, 10), (0.3, 30)]):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=score, n_samples=samples)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    row = store.leaderboard().frame.row(0, named=True)
    assert row["val_score"] == pytest.approx(0.2)
    assert row["rmsecv"] == pytest.approx(math.sqrt((10 * 0.01 + 30 * 0.09) / 40))


@pytest.mark.parametrize("order", [1, -1])
def test_a_fold_of_several_models_is_told_the_same_in_whatever_order_they_were_saved(
    store: WorkspaceStore, sweep: Sweep, order: int
) -> None:
    saved = [("PLS", 10, "regression"), ("ridge", 30, "regression"), ("SVR", 20, None)]
    for model, samples, task in saved[::order]:
        predict(store, sweep.pipeline, sweep.chain, model_name=model, n_samples=samples, task_type=task, val_score=0.3)
    predict(store, sweep.pipeline, sweep.chain, model_name="PLS", fold_id="1", n_samples=10, val_score=0.1)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    row = store.leaderboard().frame.row(0, named=True)
    assert (row["model_name"], row["task_type"]) == ("PLS", "regression")
    assert row["rmsecv"] == pytest.approx(math.sqrt((30 * 0.09 + 10 * 0.01) / 40))


def test_huge_scores_are_ranked_without_an_error(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold, score in enumerate([1e300, 1e300]):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=score)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    row = store.leaderboard().frame.row(0, named=True)
    assert (row["val_score"], row["val_sd"], row["rmsecv"]) == (1e300, None, None)


@pytest.mark.long
@settings(max_examples=examples(25))
@given(
    scores=st.lists(
        st.lists(st.sampled_from([NAN, None, math.inf, 0.25, 0.5, 0.75]), min_size=1, max_size=3),
        min_size=1,
        max_size=6,
    ),
    higher=st.booleans(),
)
def test_any_scores_rank_as_the_rule_says(
    scores: list[list[float | None]], higher: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with WorkspaceStore(tmp_path_factory.mktemp("rule")) as store:
        run = store.begin_run("r", {}, [])
        metric = "r2" if higher else "rmse"
        saved = [save_folds(store, run, f"{n}", folds, metric=metric) for n, folds in enumerate(scores)]

        def key(place: int) -> tuple[bool, float, int]:
            numbers = [each for each in scores[place] if each is not None and math.isfinite(each)]
            whole = len(numbers) == 3
            mean = sum(numbers) / 3 if whole else 0.0
            return (not whole, -mean if higher else mean, place)

        expected = [saved[place] for place in sorted(range(len(saved)), key=key)]
        assert store.leaderboard().frame["chain_id"].to_list() == expected


# -- directions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(get_scorer_names()) - {"max_error"}))
def test_every_scorer_of_scikit_learn_is_better_when_it_is_higher(name: str) -> None:
    assert known_direction(name) is True


@pytest.mark.parametrize(
    ("name", "higher"),
    [("RMSE", False), ("R²", True), ("f1 weighted", True), ("ccc", True), ("NSE", True), ("MAPE", False)],
)
def test_directions_are_known_however_a_name_is_written(store: WorkspaceStore, name: str, higher: bool) -> None:
    assert store.metric_direction(name) is higher


def test_a_metric_of_unknown_direction_is_refused_with_the_cure_by_every_ranking(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    worse = save_folds(store, run, "worse", [0.2, 0.2, 0.2], metric="crunch")
    better = save_folds(store, run, "better", [0.9, 0.9, 0.9], metric="crunch")
    for rank in (store.leaderboard, store.query_top_chains, store.query_top_aggregated_predictions):
        with pytest.raises(UnknownDirectionError, match=r"store.set_metric_direction\('crunch', higher_is_better"):
            rank("crunch")
    board = store.leaderboard()  # of all metrics: what cannot be ranked is named
    assert (len(board), board.unranked) == (0, ("crunch",))
    assert "not ranked: crunch" in repr(board)
    store.set_metric_direction("Crunch", True)
    assert store.leaderboard("crunch").frame["chain_id"].to_list() == [better, worse]
    assert store.query_top_chains("crunch")["chain_id"].to_list() == [better, worse]
    assert store.query_top_aggregated_predictions("crunch")["chain_id"].to_list() == [better, worse]


def test_a_stored_direction_lasts_and_wins_over_what_is_known(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        store.set_metric_direction("rmse", True)
        with pytest.raises(InvalidInputError, match="higher_is_better must be True or False, got 'up'"):
            store.set_metric_direction("rmse", "up")  # type: ignore[arg-type]
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert store.metric_direction("rmse") is True
        assert store.metric_direction("mae") is False
        with pytest.raises(ReadOnlyError):
            store.set_metric_direction("rmse", False)


def test_directions_are_merged_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    for name, higher in (("a", True), ("b", True), ("c", False)):
        with WorkspaceStore(tmp_path / name) as store:
            store.set_metric_direction("crunch", higher)
    with WorkspaceStore(tmp_path / "a") as store:
        store.merge(tmp_path / "b")
        with pytest.raises(InvalidInputError, match="direction of metric 'crunch'"):
            store.merge(tmp_path / "c")
    with WorkspaceStore(tmp_path / "new") as store:
        store.merge(tmp_path / "c")
        assert store.metric_direction("crunch") is False


# -- surfaces ----------------------------------------------------------------------------------


def test_all_surfaces_name_one_best_chain(store: WorkspaceStore, chains: dict[str, str]) -> None:
    best = chains["of a failed run"]
    assert store.leaderboard().best.chain_id == best
    assert store.leaderboard()[0].chain_id == best
    assert store.find("@best") == best
    assert store.chain().chain_id == best
    assert store.run("broken").best.chain_id == best
    store.flush()
    assert [each.chain_id for each in store.progress(store.find("broken", "run")).best] == [best]
    assert best[-8:] in repr(store.leaderboard()).splitlines()[2]


def test_the_text_of_a_leaderboard_tells_the_board_and_its_rows(store: WorkspaceStore, chains: dict[str, str]) -> None:
    lines = repr(store.leaderboard()).splitlines()
    assert lines[0] == "corn · accuracy, higher is better · 6 finished, 1 running"
    assert lines[1].split() == [
        "#",
        "chain",
        "preprocessing",
        "model",
        "val",
        "±",
        "sd",
        "test",
        "final",
        "folds",
        "run",
    ]
    assert "0.91 ± 0.01" in lines[3]
    assert lines[-1].strip() == "2 chains with a missing or NaN fold ranked last"
    assert store.leaderboard().rule == RULE
    assert "nothing is ranked yet" in repr(store.leaderboard(dataset="wheat"))


# -- finding -----------------------------------------------------------------------------------


def test_things_are_found_by_id_by_its_end_and_by_name(store: WorkspaceStore, chains: dict[str, str]) -> None:
    chain = chains["steady"]
    prediction = store.get_chain_predictions(chain)["prediction_id"][0]
    run = store.find("nightly")
    assert store.find(chain) == store.find(chain[-8:]) == store.find(chain[-6:], "chain") == chain
    assert store.find(prediction) == store.find(prediction[-10:]) == prediction
    assert store.get_run(run) is not None
    assert store.find("steady", "pipeline") == store.find("steady")
    assert store.get_run(store.find("@last")) is not None
    assert store.find("@last", "chain") == chains["of a failed run"]
    with pytest.raises(NotFoundError, match="no run, pipeline, chain or prediction 'nothing'"):
        store.find("nothing")
    with pytest.raises(NotFoundError, match="only @best and @last"):
        store.find("@worst")


def test_what_may_mean_several_things_is_refused_with_their_ids(store: WorkspaceStore) -> None:
    runs = [store.begin_run("twice", {}, []) for _ in range(2)]
    with pytest.raises(AmbiguousError) as caught:
        store.find("twice")
    assert all(run in str(caught.value) for run in runs)
    for metric in ("rmse", "accuracy"):
        save_folds(store, runs[0], metric, [0.1, 0.1, 0.1], metric=metric)
    with pytest.raises(AmbiguousError, match="@best"):
        store.find("@best")


# -- progress ----------------------------------------------------------------------------------


def test_progress_tells_counts_rate_best_and_errors(store: WorkspaceStore) -> None:
    run = store.begin_run("nightly", {}, [], expected=10)
    save_folds(store, run, "good", [0.9, 0.9, 0.9])
    store.fail_pipeline(begin_pipeline(store, run, "bad"), "SVD did not converge")
    save_folds(store, run, "going on", [0.8], ended="running")
    store.list_runs()  # a read puts what waits in the tables
    found = store.progress()
    assert (found.done, found.failed, found.running, found.expected, found.status) == (1, 1, 1, 10, "running")
    assert found.per_second is not None
    assert found.left is not None
    assert [each.score for each in found.best] == [pytest.approx(0.9)]
    assert [(each.pipeline, each.error) for each in found.failures] == [("bad", "SVD did not converge")]
    assert "1 done, 1 failed, 1 running" in str(found)
    assert repr(store.run("nightly")).startswith(str(store.progress()))
    store.complete_run(run, {"note": 1})
    ended = store.run("nightly")
    assert (ended.status, ended.row["summary"], ended.progress().left) == ("completed", {"note": 1}, None)


def test_progress_leaves_what_waits_where_it_is(tmp_path: Path) -> None:
    code = """
import sys
from helpers import *
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("nightly", {}, [])
for name in ("first", "second"):
    pipeline = begin_pipeline(store, run, name)
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    print(name, flush=True)
    sys.stdin.readline()
store.close()
"""
    WorkspaceStore(tmp_path).close()
    writer = child(code, tmp_path)
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline().strip() == "first"
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs().height == 1  # a read places what waits
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline().strip() == "second"
        found = store.progress()
        assert (found.done, found.waiting, len(found.writers)) == (1, 1, 1)
        assert store.progress().waiting == 1
        assert store.list_pipelines().height == 2
        assert (store.progress().done, store.progress().waiting) == (2, 0)
    writer.stdin.write("\n")
    finish(writer)


def test_views_of_what_is_gone_say_so_and_do_not_raise_in_a_repr(store: WorkspaceStore, sweep: Sweep) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    run, chain = store.run(), store.chain(sweep.chain)
    assert "val by fold: 0 0.1" in repr(chain)
    assert chain.scores.height == 1
    assert [each.run_id for each in store.runs()] == [sweep.run]
    store.delete_run(sweep.run)
    assert "no run" in repr(run)
    assert "no chain" in repr(chain)
    store.close()
    assert "closed" in repr(run)
