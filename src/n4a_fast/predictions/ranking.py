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
from n4a_fast.schema.ddl import scores_of_chains
from n4a_fast.values import checks

RULE = (
    "Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score of"
    " their own folds (averaged predictions, refits and the test set never count), in the direction stored for the"
    " metric; a chain with a missing or NaN fold ranks after all others, and ties go to the older chain."
)
SCORES = {"val": "val_score", "test": "test_score", "final": "final_score"}
GROUPS = {"model": "model_class", "preprocessing": "preprocessings"}

_METRICS = "SELECT DISTINCT metric FROM predictions WHERE chain_id IS NOT NULL AND metric IS NOT NULL ORDER BY metric"
_STATES = """SELECT p.dataset_name, p.status, count(*) FROM pipelines p
WHERE (?1 IS NULL OR p.run_id = ?1) GROUP BY ALL"""
_FINALS = """(SELECT chain_id, avg(test_score) FILTER (isfinite(test_score)) AS final_score
    FROM predictions WHERE refit_context IS NOT NULL AND fold_id = 'final' AND partition = 'test' GROUP BY chain_id)"""
_RANKED = """WITH directions AS (SELECT unnest(?1::VARCHAR[]) AS metric, unnest(?2::DOUBLE[]) AS sign),
known AS (
    SELECT s.dataset_name, s.metric, s.chain_id, c.pipeline_id, p.run_id, r.name AS run_name, r.status AS run_status,
        p.status AS pipeline_status, s.task_type, s.model_name, c.model_class, c.preprocessings, s.val_score, s.val_sd,
        s.folds, s.missing_folds, s.test_score, s.train_score, f.final_score, s.rmsecv, c.created_at, d.sign
    FROM {scores} s
    JOIN directions d ON d.metric = s.metric
    JOIN chains c ON c.chain_id = s.chain_id
    JOIN pipelines p ON p.pipeline_id = c.pipeline_id
    LEFT JOIN runs r ON r.run_id = p.run_id
    LEFT JOIN {finals} f ON f.chain_id = s.chain_id
    WHERE p.status IN ('completed', ?3) AND (?4 IS NULL OR s.dataset_name = ?4) AND (?5 IS NULL OR p.run_id = ?5)),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY dataset_name, metric{group} ORDER BY
            missing_folds > 0 OR {score} IS NULL, {score} * sign, created_at, chain_id) AS place,
        count(*) OVER (PARTITION BY dataset_name, metric) AS n_chains,
        count(*) FILTER (missing_folds > 0) OVER (PARTITION BY dataset_name, metric) AS n_incomplete
    FROM known{where}),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY dataset_name, metric ORDER BY
        missing_folds > 0 OR {score} IS NULL, {score} * sign, created_at, chain_id) AS rank
    FROM ranked {chosen})
SELECT rank, * EXCLUDE (rank, place, sign) FROM numbered {page} ORDER BY dataset_name, metric, rank"""
_PARAMS = """SELECT chain_id, arg_min(best_params, created_at) FILTER (best_params <> '{}') AS best_params
FROM predictions WHERE chain_id IN (SELECT unnest(?)) GROUP BY chain_id"""
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
            stored = [metric for (metric,) in self._database.rows(_METRICS)]
            wanted, scores = self._source(question.metric, stored)
            directions, unknown = self._directions(wanted, question)
            if not directions and unknown and question.metric is not None:
                raise UnknownDirectionError(unknown[0])
            frame = self._frame(question, scores, directions)
            states = self._database.rows(_STATES, (question.run,))
        boards = tuple(_board(part, directions, states) for part in _parts(frame))
        return Ranked(boards, frame.drop("n_chains", "n_incomplete"), tuple(unknown))

    def _source(self, metric: str | None, stored: list[str]) -> tuple[list[str], str]:
        """The metrics to rank by, and where their scores come from."""
        if metric is None:
            return stored, "chain_scores"
        named = [name for name in stored if name.lower() == metric.lower()]
        if named or not stored:
            return named, "chain_scores"
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
        sql = _RANKED.format(
            scores=scores,
            finals=_FINALS,
            score=SCORES[question.score],
            where="" if question.where is None else f" WHERE ({question.where}\n)",
            group=f", {GROUPS[question.by]}" if question.by else "",
            chosen="WHERE place = 1" if question.by else "",
            page="" if question.n is None else f"WHERE rank <= {question.n}",
        )
        signs = [-1.0 if up else 1.0 for up in directions.values()]
        state = "running" if question.include_running else "completed"
        params = [list(directions), signs, state, question.dataset, question.run]
        # a condition that a user wrote may only read
        ask = self._database.frame if question.where is None else self._database.frame_of_user_sql
        found = ask(sql, params)
        of_chains = self._database.frame(_PARAMS, (found["chain_id"].unique().to_list(),))
        return found.join(of_chains, on="chain_id", how="left", maintain_order="left")


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
    return f"({scores_of_chains(renamed, **means)})"


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
