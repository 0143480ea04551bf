"""Filters mean what they say; rankings are ordered, NaN and NULL last, ties by id."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, examples, predict, save_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions import aggregates
from n4a_fast.predictions.queries import GROUPS, SCORES

NAN = math.nan


NAMES = ["a", "A", "aa", "corn's", "é", "e\u0301", "\uffff", "\U0001f33d", "~", " "]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    """A prediction for each name of a data set."""
    with WorkspaceStore(tmp_path_factory.mktemp("named")) as store:
        sweep = begin_sweep(store)
        for place, name in enumerate(NAMES):
            predict(store, sweep.pipeline, sweep.chain, dataset_name=name, fold_id=str(place), branch_id=place)
        yield store


@pytest.fixture
def filled(store: WorkspaceStore) -> tuple[WorkspaceStore, Sweep, Sweep]:
    """Two sweeps with names that LIKE would confuse."""
    first, second = begin_sweep(store, "corn_1"), begin_sweep(store, "corn%1")
    for sweep, dataset in ((first, "corn_1"), (second, "corn%1")):
        for model in ("sk.PLSRegression", "sk.PLS_Regression", "my.PLS%"):
            for fold in ("0", "avg"):
                predict(
                    store,
                    sweep.pipeline,
                    sweep.chain,
                    dataset_name=dataset,
                    model_name=model,
                    model_class=model,
                    fold_id=fold,
                )
    return store, first, second


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({}, 12),
        ({"dataset_name": "corn_1"}, 6),
        ({"dataset_name": "corn%1"}, 6),
        ({"dataset_name": "corn%"}, 0),
        ({"dataset_name": "cornX1"}, 0),
        ({"model_class": "sk.PLSRegression"}, 4),
        ({"model_class": "sk.%"}, 8),
        ({"model_class": "sk.PLS_Regression"}, 4),
        ({"model_class": "sk.PLS\\_Regression"}, 4),
        ({"model_class": "my.PLS\\%"}, 4),
        ({"model_class": "sk"}, 0),
        ({"model_class": "%"}, 12),
        ({"fold_id": "0"}, 6),
        ({"fold_id": 0}, 6),
        ({"fold_id": "avg"}, 6),
        ({"fold_id": "%"}, 0),
        ({"fold_id": "_"}, 0),
        ({"partition": "val"}, 12),
        ({"partition": "va_"}, 0),
        ({"partition": "VAL"}, 0),
        ({"branch_id": 0}, 0),
        ({"pipeline_id": "%"}, 0),
        ({"run_id": "%"}, 0),
        ({"pipeline_id": "unknown"}, 0),
        ({"dataset_name": "corn_1", "fold_id": "avg", "model_class": "sk.%"}, 2),
        ({"limit": 5}, 5),
        ({"limit": 0}, 0),
        ({"limit": 5, "offset": 10}, 2),
        ({"offset": 11}, 1),
        ({"offset": 99}, 0),
    ],
)
def test_filters_are_equalities_joined_by_and(
    filled: tuple[WorkspaceStore, Sweep, Sweep], filters: dict[str, Any], rows: int
) -> None:
    assert filled[0].query_predictions(**filters).height == rows


def test_filters_by_run_and_pipeline(filled: tuple[WorkspaceStore, Sweep, Sweep]) -> None:
    store, first, second = filled
    assert set(store.query_predictions(run_id=first.run)["pipeline_id"]) == {first.pipeline}
    assert set(store.query_predictions(pipeline_id=second.pipeline)["dataset_name"]) == {"corn%1"}
    assert store.query_predictions(run_id=first.run, pipeline_id=second.pipeline).height == 0


def test_pages_join_to_the_whole_in_one_order(filled: tuple[WorkspaceStore, Sweep, Sweep]) -> None:
    store = filled[0]
    pages = pl.concat([store.query_predictions(limit=5, offset=offset) for offset in (0, 5, 10)])
    assert pages["prediction_id"].to_list() == store.query_predictions()["prediction_id"].to_list()


@settings(max_examples=examples(15))
@given(st.lists(st.sampled_from(NAMES), max_size=6))
def test_a_list_of_names_finds_what_each_of_them_finds(named: WorkspaceStore, wanted: list[str]) -> None:
    """Whatever their characters, and the order that Python and DuckDB give them."""
    found = named.query_predictions(dataset_name=wanted)["dataset_name"].to_list()  # type: ignore[arg-type]
    assert sorted(found) == sorted(set(wanted) or NAMES)
    assert named.query_predictions(branch_id=[0, 2]).height == named.query_predictions(branch_id=[2, 0, 99]).height == 2  # type: ignore[arg-type]


def test_a_branch_that_is_no_number_is_refused(store: WorkspaceStore) -> None:
    with pytest.raises(InvalidInputError, match="branch_id must be a whole number, got 'a'"):
        store.query_predictions(branch_id="a")  # type: ignore[arg-type]


def test_a_branch_filter_takes_zero_as_a_branch(store: WorkspaceStore, sweep: Sweep) -> None:
    for branch in (None, 0, 1):
        predict(store, sweep.pipeline, sweep.chain, branch_id=branch)
    assert store.query_predictions(branch_id=0)["branch_id"].to_list() == [0]


def test_frames_keep_their_schema_when_empty_or_all_null(store: WorkspaceStore, sweep: Sweep) -> None:
    empty = store.query_predictions()
    predict(
        store,
        sweep.pipeline,
        None,
        val_score=None,
        test_score=None,
        train_score=None,
        metric=None,
        task_type=None,
        n_samples=None,
        n_features=None,
        scores=None,
        best_params=None,
        exclusion_count=None,
        exclusion_rate=None,
        preprocessings=None,
    )
    full = store.query_predictions()
    assert full.height == 1
    assert empty.schema == full.schema
    assert empty.schema["val_score"] == pl.Float64
    assert empty.schema["branch_id"] == pl.Int32
    assert empty.schema["created_at"] == pl.Datetime("us")
    assert store.top_predictions(3).schema == empty.schema
    assert store.get_chain_predictions("unknown").schema == empty.schema


def test_internal_columns_stay_inside(store: WorkspaceStore, sweep: Sweep) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    assert "nk" not in store.query_predictions().columns


# -- rankings --------------------------------------------------------------------------------


def scored(store: WorkspaceStore, sweep: Sweep, scores: list[float | None], **changes: Any) -> None:
    for index, score in enumerate(scores):
        predict(
            store,
            sweep.pipeline,
            sweep.chain,
            prediction_id=f"{changes.get('model_name', 'm')}-{index}",
            val_score=score,
            fold_id=str(index),
            **changes,
        )


def show(frame: pl.DataFrame, column: str = "val_score") -> list[str]:
    return [str(score) for score in frame[column].to_list()]


@pytest.mark.parametrize(
    ("ascending", "expected"),
    [(True, ["-inf", "0.1", "0.2", "inf"]), (False, ["inf", "0.2", "0.1", "-inf"])],
)
def test_nan_and_null_rank_last_in_both_directions(
    store: WorkspaceStore, sweep: Sweep, ascending: bool, expected: list[str]
) -> None:
    scored(store, sweep, [NAN, 0.2, None, math.inf, 0.1, -math.inf])
    ranked = show(store.top_predictions(10, ascending=ascending))
    assert ranked[:4] == expected
    assert sorted(ranked[4:]) == ["None", "nan"]
    assert show(store.top_predictions(2, ascending=ascending)) == expected[:2]


@pytest.mark.parametrize("ascending", [True, False])
def test_ties_are_ordered_by_id(store: WorkspaceStore, sweep: Sweep, ascending: bool) -> None:
    for identifier in ("c", "a", "d", "b"):
        predict(store, sweep.pipeline, sweep.chain, prediction_id=identifier, fold_id=identifier)
    assert store.top_predictions(3, ascending=ascending)["prediction_id"].to_list() == ["a", "b", "c"]


@pytest.mark.parametrize("metric", SCORES)
def test_each_score_can_rank(store: WorkspaceStore, sweep: Sweep, metric: str) -> None:
    for index, score in enumerate([0.3, 0.1, 0.2]):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(index), **{metric: score})
    assert show(store.top_predictions(2, metric=metric), metric) == ["0.1", "0.2"]


def test_a_ranking_is_of_one_partition_and_data_set(store: WorkspaceStore, sweep: Sweep) -> None:
    predict(store, sweep.pipeline, sweep.chain, val_score=0.3)
    predict(store, sweep.pipeline, sweep.chain, val_score=0.1, partition="test")
    predict(store, sweep.pipeline, sweep.chain, val_score=0.2, dataset_name="corn%", model_name="other")
    assert show(store.top_predictions(5)) == ["0.2", "0.3"]
    assert show(store.top_predictions(5, partition="test")) == ["0.1"]
    assert show(store.top_predictions(5, dataset_name="corn")) == ["0.3"]
    assert store.top_predictions(5, dataset_name="c%").height == 0


def test_groups_give_their_best_rows_and_the_whole_is_ordered(store: WorkspaceStore, sweep: Sweep) -> None:
    scored(store, sweep, [0.5, 0.1, 0.3], model_class="A", model_name="a")
    scored(store, sweep, [NAN, 0.2, None], model_class="B", model_name="b")
    scored(store, sweep, [NAN, NAN, None], model_class="C", model_name="c")
    top = store.top_predictions(2, group_by="model_class")
    assert top["model_class"].to_list()[:3] == ["A", "B", "A"]
    assert show(top)[:3] == ["0.1", "0.2", "0.3"]
    assert sorted(top["model_class"].to_list()) == ["A", "A", "B", "B", "C", "C"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_listed_group_works(store: WorkspaceStore, sweep: Sweep, group: str) -> None:
    scored(store, sweep, [0.5, 0.1])
    assert store.top_predictions(1, group_by=group).height >= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": 5, "metric": "rmse"}, "metric 'rmse'"),
        ({"n": 5, "metric": "val_score; DROP TABLE runs"}, "metric"),
        ({"n": 5, "group_by": "created_at"}, "group_by 'created_at'"),
        ({"n": 5, "group_by": "1; DROP TABLE runs"}, "group_by"),
        ({"n": -1}, "n must not be negative"),
        ({"n": 2.5}, "n must be a whole number"),
        ({"n": None}, "n must be"),
    ],
)
def test_what_cannot_rank_is_refused(store: WorkspaceStore, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        store.top_predictions(**arguments)


@pytest.mark.parametrize("arguments", [{"limit": -1}, {"offset": -1}, {"limit": "5"}, {"offset": 0.5}])
def test_wrong_pages_are_refused(store: WorkspaceStore, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        store.query_predictions(**arguments)


# -- aggregates ------------------------------------------------------------------------------


def test_one_row_per_chain_with_folds_and_scores(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold, score in enumerate([0.1, 0.2, 0.6]):
        for partition in ("train", "val"):
            predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), partition=partition, val_score=score)
    predict(store, sweep.pipeline, sweep.chain, fold_id="final", val_score=99.0, refit_context="standalone")
    row = store.query_aggregated_predictions().row(0, named=True)
    assert (row["chain_id"], row["run_id"], row["fold_count"], row["partition_count"]) == (sweep.chain, sweep.run, 3, 2)
    assert row["partitions"] == ["train", "val"]
    assert (row["min_val_score"], row["max_val_score"], round(row["avg_val_score"], 12)) == (0.1, 0.6, 0.3)
    assert row["fold_ids"] == ["0", "1", "2"] * 2
    assert len(row["prediction_ids"]) == 6


def test_aggregates_filter_and_rank(store: WorkspaceStore, sweep: Sweep) -> None:
    other = save_chain(store, begin_pipeline(store, sweep.run))
    other_pipeline = store.get_chain(other)
    assert other_pipeline is not None
    predict(store, sweep.pipeline, sweep.chain, val_score=0.3)
    predict(store, other_pipeline["pipeline_id"], other, val_score=0.1)
    assert store.query_top_aggregated_predictions("rmse")["chain_id"].to_list() == [other, sweep.chain]
    assert store.query_top_aggregated_predictions("rmse", ascending=False)["chain_id"].to_list() == [sweep.chain, other]
    assert store.query_top_aggregated_predictions("rmse", 1)["chain_id"].to_list() == [other]
    assert store.query_top_aggregated_predictions("r2").height == 0
    assert store.query_aggregated_predictions(chain_id=other)["chain_id"].to_list() == [other]
    assert store.query_aggregated_predictions(run_id=sweep.run).height == 2
    assert store.query_aggregated_predictions(run_id="unknown").schema == store.query_aggregated_predictions().schema


GROUPED_PLAINLY = """SELECT pipelines.run_id, chains.pipeline_id, chains.chain_id, chains.model_class,
    chains.model_step_idx, chains.preprocessings, chains.branch_path, chains.source_index, predictions.model_name,
    predictions.metric, predictions.dataset_name,
    count(DISTINCT fold_id) AS fold_count, count(DISTINCT partition) AS partition_count,
    list_sort(list(DISTINCT partition)) AS partitions,
    min(val_score) AS min_val_score, max(val_score) AS max_val_score, avg(val_score) AS avg_val_score,
    min(test_score) AS min_test_score, max(test_score) AS max_test_score, avg(test_score) AS avg_test_score,
    min(train_score) AS min_train_score, max(train_score) AS max_train_score, avg(train_score) AS avg_train_score,
    list(prediction_id ORDER BY partition, TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id, prediction_id)
        AS prediction_ids,
    list(fold_id ORDER BY partition, TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id, prediction_id) AS fold_ids
FROM predictions
JOIN chains ON chains.chain_id = predictions.chain_id
JOIN pipelines ON pipelines.pipeline_id = chains.pipeline_id
WHERE predictions.refit_context IS NULL
GROUP BY ALL ORDER BY chain_id, model_name, metric, dataset_name"""


def _grouped_sweep(store: WorkspaceStore, dice: random.Random) -> tuple[list[str], list[str], list[str]]:
    runs = [store.begin_run(name, {}, []) for name in ("one", "two")]
    pipelines = [begin_pipeline(store, run) for run in runs for _ in range(2)]
    chains = [save_chain(store, pipeline) for pipeline in pipelines for _ in range(2)]
    for number in range(120):
        place = dice.randrange(len(chains))
        predict(
            store,
            dice.choice(pipelines),  # not always that of its chain
            dice.choice([chains[place], chains[place], None]),
            model_name=f"m{number % 3}",
            fold_id=str(number % 5),
            partition=dice.choice(["train", "val", "test"]),
            val_score=dice.choice([number / 7, NAN]),
            metric=dice.choice(["rmse", "r2"]),
            branch_id=number,
            refit_context=dice.choice([None, None, None, "standalone"]),
        )
    return runs, pipelines, chains


@pytest.mark.parametrize("at_once", [3, 1000])
@pytest.mark.long
def test_aggregates_are_those_of_plain_grouping_whole_filtered_and_page_by_page(
    store: WorkspaceStore, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "_CHAINS_AT_ONCE", at_once)
    runs, pipelines, chains = _grouped_sweep(store, random.Random(7))
    plain = store.sql(GROUPED_PLAINLY)
    assert plain.height > 20
    whole = store.query_aggregated_predictions()
    assert whole.equals(plain, null_equal=True)
    assert whole.equals(store.sql("FROM v_aggregated_predictions ORDER BY chain_id, model_name, metric, dataset_name"))
    for size, ahead in ((3, 50_000), (1, 2), (2, 3), (1, 1)):
        monkeypatch.setattr(aggregates, "_AHEAD", ahead)
        assert pl.concat(store.iter_aggregated_predictions(batch_size=size)).equals(whole)
    for name, value in (("run_id", runs[1]), ("pipeline_id", pipelines[2]), ("chain_id", chains[3]), ("metric", "r2")):
        expected = plain.filter(pl.col(name) == value)
        assert 0 < expected.height < plain.height
        assert store.query_aggregated_predictions(**{name: value}).equals(expected)
        assert pl.concat(store.iter_aggregated_predictions(batch_size=1, **{name: value})).equals(expected)
    assert list(store.iter_aggregated_predictions(chain_id="unknown")) == []
    ranked = plain.filter(pl.col("metric") == "rmse").sort(
        pl.col("min_val_score").is_null() | pl.col("min_val_score").is_nan(),
        "min_val_score", "chain_id", "model_name", "dataset_name",
    )  # fmt: skip
    for n in (0, 1, 7, 1000):
        best = store.query_top_aggregated_predictions("rmse", n, "min_val_score")
        assert best.equals(ranked.head(n), null_equal=True)


def test_scores_that_grow_with_quality_rank_downwards(store: WorkspaceStore, sweep: Sweep) -> None:
    for name, score in (("bad", 0.2), ("good", 0.9), ("none", NAN)):
        predict(store, sweep.pipeline, sweep.chain, model_name=name, val_score=score, metric="r2")
    assert store.query_top_aggregated_predictions("r2")["model_name"].to_list() == ["good", "bad", "none"]


@pytest.mark.parametrize("arguments", [{"score_column": "nk"}, {"colour": "red"}, {"n": -1}])
def test_wrong_aggregate_arguments_are_refused(store: WorkspaceStore, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        store.query_top_aggregated_predictions("rmse", **arguments)


def test_predictions_of_a_chain(store: WorkspaceStore, sweep: Sweep) -> None:
    for partition in ("val", "test"):
        for fold in ("1", "0"):
            predict(store, sweep.pipeline, sweep.chain, partition=partition, fold_id=fold)
    predict(store, sweep.pipeline, None)
    found = store.get_chain_predictions(sweep.chain)
    assert found.select("partition", "fold_id").rows() == [("test", "0"), ("test", "1"), ("val", "0"), ("val", "1")]
    assert store.get_chain_predictions(sweep.chain, partition="val", fold_id="1").height == 1


def test_folds_come_in_the_order_of_their_numbers(store: WorkspaceStore, sweep: Sweep) -> None:
    folds = ["10", "2", "avg", "0", "w_avg"]
    for fold in folds:
        predict(store, sweep.pipeline, sweep.chain, fold_id=fold)
    expected = ["0", "2", "10", "avg", "w_avg"]
    assert store.get_chain_predictions(sweep.chain)["fold_id"].to_list() == expected
    assert store.query_aggregated_predictions(chain_id=sweep.chain)["fold_ids"].to_list() == [expected]
