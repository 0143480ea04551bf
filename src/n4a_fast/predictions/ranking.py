"""The ranking: which chain is best, by one rule for every surface.

Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score
of their own folds, in the direction stored for the metric; a chain with a missing or NaN fold ranks after all
others; ties go to the older chain. `chain_scores` has the scores; here they are put in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, UnknownDirectionError
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import one_of
from n4a_fast.schema.chain_scores import scores_of
from n4a_fast.tables.stale_chains import refresh
from n4a_fast.values import checks

RULE = (
    "Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score of"
    " their own folds (averaged predictions, refits and the test set never count), in the direction stored for the"
    " metric; a chain with a missing or NaN fold ranks after all others, and ties go to the older chain."
)
SCORES = {"val": "val_score", "test": "test_score", "final": "final_score"}
GROUPS = {"model": "model_class", "preprocessing": "preprocessings"}

_METRICS = "SELECT DISTINCT metric FROM {scores} WHERE metric IS NOT NULL ORDER BY metric"
_STATES = """SELECT p.dataset_name, p.status, count(*) FROM pipelines p
WHERE (?1 IS NULL OR p.run_id = ?1) GROUP BY ALL"""
_ORDER = "is_last, value, created_at, chain_id"
# the n-th best value of a board first: then few rows are left to be put in order
_RANKED = """WITH directions AS (SELECT unnest(?1::VARCHAR[]) AS metric, unnest(?2::DOUBLE[]) AS sign),
known AS (
    SELECT s.dataset_name, s.metric, s.chain_id, s.pipeline_id, s.run_id, r.name AS run_name, r.status AS run_status,
        s.pipeline_status, s.task_type, s.model_name, s.model_class, s.preprocessings, s.val_score, s.val_sd,
        s.folds, s.missing_folds, s.test_score, s.train_score, s.final_score, s.rmsecv, s.created_at, s.best_params,
        missing_folds > 0 OR {score} IS NULL AS is_last, {score} * d.sign AS value
    FROM {scores} s JOIN directions d ON d.metric = s.metric LEFT JOIN runs r ON r.run_id = s.run_id
    WHERE s.pipeline_status IN ('completed', ?3) AND (?4 IS NULL OR s.dataset_name = ?4)
        AND (?5 IS NULL OR s.run_id = ?5)),
asked AS (SELECT * FROM known{where}),
boards AS (
    SELECT dataset_name, metric, count(*) AS n_chains, count(*) FILTER (missing_folds > 0) AS n_incomplete, {bound}
    FROM asked GROUP BY dataset_name, metric),
chosen AS (SELECT * FROM asked JOIN boards USING (dataset_name, metric) {chosen})
SELECT row_number() OVER (PARTITION BY dataset_name, metric ORDER BY {order}) AS rank,
    * EXCLUDE (is_last, value, bound, best_params), best_params
FROM chosen QUALIFY {page} ORDER BY dataset_name, metric, rank"""
_BOUND = """CASE WHEN count(*) FILTER (NOT is_last) >= {n} THEN list_last(min(value, {n}) FILTER (NOT is_last)) END
        AS bound"""
_BOUNDED_AT_MOST = 1000
_BEST_OF_GROUP = "QUALIFY row_number() OVER (PARTITION BY dataset_name, metric, {group} ORDER BY {order}) = 1"
_HAS_SCORE = """SELECT 1 FROM predictions WHERE chain_id IS NOT NULL AND contains(scores, '"' || ? || '"') LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be ranked; None means all."""

    metric: str | None = None
    dataset: str | None = None
    run: str | None = None
    by: str | None = None
    n: int | None = 20
    score: str = "val"
    where: str | None = None
    include_running: bool = False
    higher_is_better: bool | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """The best chains of one data set by one metric, best first, and how many there are.

    `frame` has a row for each chain: rank, ids, run, model, preprocessings, `val_score` (mean of the folds; None
    where one is missing), `val_sd`, `folds`, `missing_folds`, `test_score`, `train_score`, `final_score`, `rmsecv`
    (pooled over the folds, for RMSE), `best_params` (JSON).
    """

    dataset: str
    metric: str
    higher_is_better: bool
    frame: pl.DataFrame
    chains: int
    incomplete: int
    finished: int
    running: int
    failed: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """Boards by data set and metric, all their rows below each other, and the metrics of unknown direction."""

    boards: tuple[Board, ...]
    frame: pl.DataFrame
    unranked: tuple[str, ...]


class Ranking:
    """The ranking of a workspace; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)

    def ranked(self, question: Question) -> Ranked:
        """The chains asked for; UnknownDirectionError for a metric named that has no direction."""
        _check(question)
        with self._database.reading():
            scores = "cached_chain_scores" if refresh(self._database) else "chain_scores"
            stored = [metric for (metric,) in self._database.rows(_METRICS.format(scores=scores))]
            wanted, scores = self._source(question.metric, stored, scores)
            directions, unknown = self._directions(wanted, question)
            if not directions and unknown and question.metric is not None:
                raise UnknownDirectionError(unknown[0])
            frame = self._frame(question, scores, directions)
            states = self._database.rows(_STATES, (question.run,))
        boards = tuple(_board(part, directions, states) for part in _parts(frame))
        return Ranked(boards, frame.drop("n_chains", "n_incomplete"), tuple(unknown))

    def _source(self, metric: str | None, stored: list[str], scores: str) -> tuple[list[str], str]:
        """The metrics to rank by, and where their scores come from."""
        if metric is None:
            return stored, scores
        named = [name for name in stored if name.lower() == metric.lower()]
        if named or not stored:
            return named, scores
        if not self._database.rows(_HAS_SCORE, (metric,)):
            raise InvalidInputError(
                f"no prediction has a score {metric!r}; the workspace is scored by {', '.join(stored)}"
            )
        return [metric], _from_scores(metric)

    def _directions(self, wanted: list[str], question: Question) -> tuple[dict[str, bool], list[str]]:
        given = question.higher_is_better
        found = {name: self._metrics.direction(name) if given is None else given for name in wanted}
        known = {name: up for name, up in found.items() if up is not None}
        return known, [name for name in wanted if name not in known]

    def _frame(self, question: Question, scores: str, directions: dict[str, bool]) -> pl.DataFrame:
        is_bounded = question.n is not None and 0 < question.n <= _BOUNDED_AT_MOST and question.by is None
        chosen = "WHERE (bound IS NULL OR value <= bound)" if is_bounded else ""
        if question.by is not None:
            chosen = _BEST_OF_GROUP.format(group=GROUPS[question.by], order=_ORDER)
        sql = _RANKED.format(
            scores=scores,
            score=SCORES[question.score],
            where="" if question.where is None else f" WHERE ({question.where}\n)",
            bound=_BOUND.format(n=question.n) if is_bounded else "NULL AS bound",
            chosen=chosen,
            order=_ORDER,
            page="true" if question.n is None else f"rank <= {question.n}",
        )
        signs = [-1.0 if up else 1.0 for up in directions.values()]
        state = "running" if question.include_running else "completed"
        params = [list(directions), signs, state, question.dataset, question.run]
        # a condition that a user wrote may only read
        ask = self._database.frame if question.where is None else self._database.frame_of_user_sql
        return ask(sql, params)


def _from_scores(metric: str) -> str:
    """The scores of chains by a metric that stands among the `scores` of their predictions only."""
    key = metric.replace("~", "~0").replace("/", "~1").replace("'", "''")
    value = "TRY_CAST(json_extract_string(scores, '/{0}/{1}') AS DOUBLE)"
    flat = f"TRY_CAST(json_extract_string(scores, '/{key}') AS DOUBLE)"
    means = {
        name: f"coalesce(avg({value.format(name, key)}), avg({flat}) FILTER (partition = '{name}'))"
        for name in ("val", "test", "train")
    }
    renamed = "SELECT * REPLACE ('" + metric.replace("'", "''") + "' AS metric) FROM predictions"
    return f"({scores_of(renamed, **means)})"


def _check(question: Question) -> None:
    one_of(question.score, tuple(SCORES), "score")
    if question.by is not None:
        one_of(question.by, tuple(GROUPS), "by")
    if question.n is not None:
        checks.count(question.n, "n")


def _parts(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return frame.partition_by("dataset_name", "metric", maintain_order=True) if frame.height else []


def _board(frame: pl.DataFrame, directions: dict[str, bool], states: list[tuple[Any, ...]]) -> Board:
    first = frame.row(0, named=True)
    counts = {status: number for dataset, status, number in states if dataset == first["dataset_name"]}
    return Board(
        first["dataset_name"],
        first["metric"],
        directions[first["metric"]],
        frame.drop("n_chains", "n_incomplete"),
        first["n_chains"],
        first["n_incomplete"],
        *(counts.get(status, 0) for status in ("completed", "running", "failed")),
    )
