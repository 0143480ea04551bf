"""The ranking: which chain is best, by one rule for every surface.

Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score
of their own folds, in the direction stored for the metric; a chain with a missing or NaN fold ranks after all
others; ties go to the older chain. `chain_scores` has the scores; here they are put in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, UnknownDirectionError
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import one_of
from n4a_fast.schema.chain_scores import ALL_SCORES, scores_of
from n4a_fast.tables.stale_chains import WITH_COMPUTED, are_many, computed_scores, refresh
from n4a_fast.values import checks
from n4a_fast.values.texttable import plain

RULE = (
    "Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score of"
    " their own folds (averaged predictions, refits and the test set never count), in the direction stored for the"
    " metric; a chain with a missing or NaN fold ranks after all others, and ties go to the older chain."
)
SCORES = {"val": "val_score", "test": "test_score", "final": "final_score"}
GROUPS = {"model": "model_class", "preprocessing": "preprocessings"}

_STATES = """SELECT p.dataset_name, p.status, count(*) FROM pipelines p
WHERE (?1 IS NULL OR p.run_id = ?1) GROUP BY ALL"""
_BOARDS = """SELECT dataset_name, metric, count(*) FILTER ({asked}), count(*) FILTER (missing_folds > 0 AND {asked})
FROM {scores} s WHERE metric IS NOT NULL GROUP BY dataset_name, metric ORDER BY metric, dataset_name"""
_ASKED = """s.pipeline_status IN ('completed', ?1) AND (?2 IS NULL OR s.dataset_name = ?2)
    AND (?3 IS NULL OR s.run_id = ?3)"""
_KNOWN = """(SELECT s.dataset_name, s.metric, s.chain_id, s.pipeline_id, s.run_id, r.name AS run_name,
        r.status AS run_status, s.pipeline_status, s.task_type, s.model_name, s.model_class, s.preprocessings,
        s.val_score, s.val_sd, s.folds, s.missing_folds, s.test_score, s.train_score, s.final_score, s.rmsecv,
        s.created_at, s.best_params, missing_folds > 0 OR {score} IS NULL AS is_last, {score} * d.sign AS value
    FROM {scores} s JOIN (SELECT unnest(?4::VARCHAR[]) AS metric, unnest(?5::DOUBLE[]) AS sign) d ON d.metric = s.metric
    LEFT JOIN runs r ON r.run_id = s.run_id
    WHERE {asked}{near})"""
_RANKED = """SELECT row_number() OVER (PARTITION BY dataset_name, metric ORDER BY {order}) AS rank,
    * EXCLUDE (is_last, value)
FROM (FROM {known}{where} {chosen}) QUALIFY {page} ORDER BY dataset_name, metric, rank"""
_COUNTED = """SELECT dataset_name, metric, count(*), count(*) FILTER (missing_folds > 0)
FROM {known}{where} GROUP BY ALL"""
_ALL = """SELECT dataset_name, metric, preprocessings, model_name, val_score
FROM (FROM {known}{where} {chosen}) WHERE val_score IS NOT NULL"""
_ORDER = "is_last, value, created_at, chain_id"
_BEST_OF_GROUP = "QUALIFY row_number() OVER (PARTITION BY dataset_name, metric, {group} ORDER BY {order}) = 1"
# the n best scores of a board, for which DuckDB reads few row groups: then few rows are left to be put in order
_BEST = """SELECT {score} FROM {scores} s
WHERE {asked} AND s.metric = ?4 AND s.dataset_name = ?5 AND missing_folds = 0 AND {score} IS NOT NULL
ORDER BY {score} {way} LIMIT {n}"""
_BOUNDED_AT_MOST, _BOARDS_AT_MOST = 1000, 16
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
    all_scores: bool = False


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

    def __str__(self) -> str:
        way = "higher is better" if self.higher_is_better else "lower is better"
        counts = [f"{self.finished:,} finished"]
        counts += [f"{n:,} {what}" for n, what in ((self.running, "running"), (self.failed, "failed")) if n]
        return f"{plain(self.dataset)} · {plain(self.metric)}, {way} · {', '.join(counts)}"

    def __repr__(self) -> str:
        return f"Board: {self}; {self.frame.height:,} of {self.chains:,} chains"


@dataclass(frozen=True, slots=True)
class Ranked:
    """Boards by data set and metric, all their rows below each other, the metrics of unknown direction, and where that
    is asked for what every chain with a score has of `dataset_name`, `metric`, `preprocessings`, `model_name` and
    `val_score`.
    """

    boards: tuple[Board, ...]
    frame: pl.DataFrame
    unranked: tuple[str, ...]
    scores: pl.DataFrame | None


Boards = dict[tuple[str, str], tuple[int, int]]  # by data set and metric: chains, and how many lack a fold


class Ranking:
    """The ranking of a workspace; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)
        self._known_in: tuple[int, int] | None = None
        self._computed_in: tuple[int, int] | None = None
        self._computed: pa.Table = None
        self._known_rows: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}

    def ranked(self, question: Question, *, writes: bool = True) -> Ranked:
        """The chains asked for; UnknownDirectionError for a metric named that has no direction. Without `writes` scores
        that are not up to date are computed, and not kept in the file.
        """
        _check(question)
        with self._database.reading(), self._known_scores(question, writes) as known:
            boards = self._boards(known, question)
            wanted, scores = self._source(question.metric, list(dict.fromkeys(metric for _, metric in boards)), known)
            directions, unknown = self._directions(wanted, question)
            if not directions and unknown and question.metric is not None:
                raise UnknownDirectionError(unknown[0])
            if question.where is not None or scores != known:
                boards = self._counted(scores, question, directions)
                frame = self._frame(scores, question, directions)
            else:
                frame = self._frame(scores, question, directions, self._near(scores, question, directions, boards))
            everything = self._ask(_ALL, scores, question, directions) if question.all_scores else None
            states = self._looked_up(_STATES, [question.run])
        parts = frame.partition_by("dataset_name", "metric", maintain_order=True) if frame.height else []
        return Ranked(
            tuple(_board(part, directions, boards, states) for part in parts), frame, tuple(unknown), everything
        )

    @contextmanager
    def _known_scores(self, question: Question, writes: bool) -> Iterator[str]:
        """Where the scores of chains are: in a table that is up to date; or where this process may not write it, and
        much is missing, beside it, computed once for each state of the file; or in a query.
        """
        database = self._database
        if refresh(database, writes=writes):
            yield "cached_chain_scores"
        elif database.in_transaction or question.where is not None or not are_many(database):
            yield f"({ALL_SCORES})"
        else:
            if database.state != self._computed_in:
                self._computed, self._computed_in = computed_scores(database), database.state
            with database.registered({"computed": self._computed}):
                yield WITH_COMPUTED

    def _boards(self, scores: str, question: Question) -> Boards:
        """How many chains each data set and metric has of those asked for, and how many of them lack a fold."""
        rows = self._looked_up(_BOARDS.format(scores=scores, asked=_ASKED), _asked(question))
        return {(dataset, metric): (chains, incomplete) for dataset, metric, chains, incomplete in rows}

    def _looked_up(self, sql: str, params: list[str | None]) -> list[tuple[Any, ...]]:
        """The rows of a query, asked once for each state of the file."""
        database = self._database
        if database.in_transaction:
            return database.rows(sql, params)
        if database.state != self._known_in:
            self._known_in, self._known_rows = database.state, {}
        key = (sql, *params)
        if key not in self._known_rows:
            self._known_rows[key] = database.rows(sql, params)
        return self._known_rows[key]

    def _counted(self, scores: str, question: Question, directions: dict[str, bool]) -> Boards:
        """The same, with a condition of the user."""
        rows = self._ask(_COUNTED, scores, question, directions).rows()
        return {(dataset, metric): (chains, incomplete) for dataset, metric, chains, incomplete in rows}

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

    def _near(self, scores: str, question: Question, directions: dict[str, bool], boards: Boards) -> str:
        """SQL that leaves out what is behind the last place asked for, where few boards have many chains."""
        asked = [(*names, chains) for names, (chains, _) in boards.items() if names[1] in directions and chains]
        n = question.n
        if n is None or not 0 < n <= _BOUNDED_AT_MOST or question.by is not None or len(asked) > _BOARDS_AT_MOST:
            return ""
        score, terms = SCORES[question.score], []
        for dataset, metric, chains in asked:
            up = directions[metric]
            sql = _BEST.format(scores=scores, score=score, n=n, way="DESC" if up else "ASC", asked=_ASKED)
            best = self._looked_up(sql, [*_asked(question), metric, dataset]) if chains > n else []
            if best and len(best) == n:
                within = f"missing_folds = 0 AND {score} {'>=' if up else '<='} '{best[-1][0]!r}'::DOUBLE"
                other = f"s.dataset_name <> {_quoted(dataset)} OR s.metric <> {_quoted(metric)} OR "
                terms.append(f"{other if len(asked) > 1 else ''}({within})")
        return "".join(f" AND ({term})" for term in terms)

    def _frame(self, scores: str, question: Question, directions: dict[str, bool], near: str = "") -> pl.DataFrame:
        return self._ask(_RANKED, scores, question, directions, near)

    def _ask(
        self, sql: str, scores: str, question: Question, directions: dict[str, bool], near: str = ""
    ) -> pl.DataFrame:
        by = question.by
        text = sql.format(
            known=_KNOWN.format(scores=scores, score=SCORES[question.score], asked=_ASKED, near=near),
            where="" if question.where is None else f" WHERE ({question.where}\n)",
            chosen="" if by is None else _BEST_OF_GROUP.format(group=GROUPS[by], order=_ORDER),
            order=_ORDER,
            page="true" if question.n is None else f"rank <= {question.n}",
        )
        # a condition that a user wrote may only read
        ask = self._database.frame if question.where is None else self._database.frame_of_user_sql
        return ask(text, [*_asked(question), list(directions), [-1.0 if up else 1.0 for up in directions.values()]])


def _asked(question: Question) -> list[str | None]:
    """The parameters of `_ASKED`."""
    return [
        "running" if question.include_running else "completed",
        checks.optional_text(question.dataset, "dataset"),
        checks.optional_text(question.run, "run"),
    ]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _from_scores(metric: str) -> str:
    """The scores of chains by a metric that stands among the `scores` of their predictions only."""
    key = metric.replace("~", "~0").replace("/", "~1").replace("'", "''")
    value = "TRY_CAST(json_extract_string(scores, '/{0}/{1}') AS DOUBLE)"
    flat = f"TRY_CAST(json_extract_string(scores, '/{key}') AS DOUBLE)"
    means = {
        name: f"coalesce(avg({value.format(name, key)}), avg({flat}) FILTER (partition = '{name}'))"
        for name in ("val", "test", "train")
    }
    renamed = f"SELECT * REPLACE ({_quoted(metric)} AS metric) FROM predictions"
    return f"({scores_of(renamed, **means)})"


def _check(question: Question) -> None:
    checks.optional_text(question.metric, "metric")
    one_of(question.score, tuple(SCORES), "score")
    if question.by is not None:
        one_of(question.by, tuple(GROUPS), "by")
    if question.n is not None:
        checks.count(question.n, "n")


def _board(frame: pl.DataFrame, directions: dict[str, bool], boards: Boards, states: list[tuple[Any, ...]]) -> Board:
    first = frame.row(0, named=True)
    dataset, metric = first["dataset_name"], first["metric"]
    counts = {status: number for of_dataset, status, number in states if of_dataset == dataset}
    ended = [counts.get(status, 0) for status in ("completed", "running", "failed")]
    return Board(dataset, metric, directions[metric], frame, *boards[dataset, metric], *ended)
