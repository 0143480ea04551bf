"""The ranking of any scores is that of a plain sort: numbers first, then NaN, then NULL, ties by id."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import pytest
from helpers import begin_pipeline, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.predictions import queries

SCORES = st.none() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.25, 0.5, 1.0])
ROWS = st.lists(st.tuples(SCORES, st.sampled_from([None, "a", "b"])), min_size=1, max_size=12)
DATASETS = count()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, str]]:
    with WorkspaceStore(tmp_path_factory.mktemp("ranking")) as store:
        yield store, begin_pipeline(store, store.begin_run("r", {}, []))


def plain_rank(ids: list[str], rows: list[tuple[float | None, str | None]], ascending: bool) -> list[int]:
    def key(place: int) -> tuple[int, float, str]:
        score = rows[place][0]
        if score is None or math.isnan(score):
            return (1, 2.0 if score is None else 1.0, ids[place])
        return (0, score if ascending else -score, ids[place])

    return sorted(range(len(rows)), key=key)


@settings(max_examples=examples(60))
@given(rows=ROWS, n=st.integers(0, 13), ascending=st.booleans(), grouped=st.booleans(), bounded=st.booleans())
@pytest.mark.long
def test_any_scores_rank_as_in_a_plain_sort(
    workspace: tuple[WorkspaceStore, str],
    rows: list[tuple[float | None, str | None]],
    n: int,
    ascending: bool,
    grouped: bool,
    bounded: bool,
) -> None:
    store, pipeline = workspace
    dataset = f"d{next(DATASETS)}"
    columns = {
        "pipeline_id": pipeline,
        "dataset_name": dataset,
        "model_name": dataset,
        "model_class": "PLS",
        "partition": "val",
        "metric": "rmse",
        "fold_id": [str(row) for row in range(len(rows))],
        "val_score": [score for score, _ in rows],
        "branch_name": [group for _, group in rows],
    }
    ids = store.save_predictions(columns)
    expected = plain_rank(ids, rows, ascending)
    if grouped:
        taken: dict[str | None, int] = {}
        expected = [
            place
            for place in expected
            if taken.setdefault(rows[place][1], 0) < n and not taken.update({rows[place][1]: taken[rows[place][1]] + 1})
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "_BOUNDED_AT_MOST", 1000 if bounded else -1)
        top = store.top_predictions(
            n, ascending=ascending, dataset_name=dataset, partition=None, group_by="branch_name" if grouped else None
        )
    assert top["prediction_id"].to_list() == [ids[place] for place in (expected if grouped else expected[:n])]
