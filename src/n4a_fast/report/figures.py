"""What charts show, asked of a store: bounded, however many predictions there are, and the same for the same data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.predictions.queries import one_of
from n4a_fast.predictions.ranking import Board
from n4a_fast.report import charts
from n4a_fast.report.charts import Chart, Rows
from n4a_fast.report.held_out import Store, Values, held_out
from n4a_fast.values.texttable import plain

if TYPE_CHECKING:
    from n4a_fast.leaderboard import Leaderboard

POINTS, LARGEST = 500, 25  # of a scatter, and how many of the largest residuals are always among them
BINS, ROWS, COLUMNS, BUCKETS, BEST, CLASSES = 60, 30, 15, 400, 12, 20
OF_CHAIN = ("scatter", "residuals", "confusion")
OF_BOARD = ("heatmap", "scores", "boxes", "folds", "impact")
KINDS = (*OF_CHAIN, *OF_BOARD, "timeline")

_FOLDS = """SELECT chain_id, fold_id, avg(val_score) AS score FROM predictions
WHERE chain_id IN (SELECT unnest(?)) AND partition = 'val' AND refit_context IS NULL
    AND fold_id NOT IN ('avg', 'w_avg', 'final') AND isfinite(val_score)
GROUP BY chain_id, fold_id"""
_ENDS = """WITH ended AS (SELECT completed_at, status FROM pipelines
    WHERE completed_at IS NOT NULL AND (?1 IS NULL OR run_id = ?1) AND (?2 IS NULL OR dataset_name = ?2)),
numbered AS (SELECT *, ntile({buckets}) OVER (ORDER BY completed_at, status) AS bucket FROM ended),
counted AS (SELECT bucket, max(completed_at) AS time, count(*) FILTER (status = 'completed') AS done,
    count(*) FILTER (status = 'failed') AS failed FROM numbered GROUP BY bucket)
SELECT time, sum(done) OVER (ORDER BY bucket)::BIGINT AS done, sum(failed) OVER (ORDER BY bucket)::BIGINT AS failed
FROM counted ORDER BY bucket"""


def chart(
    store: Store, kind: str, identifier: str | None, dataset: str | None, metric: str | None, run: str | None
) -> Chart:
    """A chart of a chain, of a board, or of a run's time; NotFoundError where there is nothing to draw."""
    one_of(kind, KINDS, "kind")
    if kind in OF_CHAIN:
        return of_chain(store, kind, store.find(identifier or "@best", "chain"))
    if kind == "timeline":
        run_id = store.find(identifier or run, "run") if identifier or run else None
        return timeline(store, run_id, dataset)
    run_id = store.find(identifier, "run") if identifier else run
    found = store.leaderboard(metric, dataset=dataset, run=run_id, n=BEST, all_scores=True)
    boards = found.boards
    if not boards:
        raise NotFoundError("chain", kind, "no chain of a completed pipeline is ranked yet")
    if len(boards) > 1:
        names = ", ".join(f"{board.dataset} by {board.metric}" for board in boards)
        raise InvalidInputError(f"there are several boards ({names}); give dataset= or metric=")
    return of_board(store, kind, boards[0], scores_of(found, boards[0]))


def of_chain(store: Store, kind: str, chain_id: str, name: str = "") -> Chart:
    """A chart of the chain's predictions of spectra that their model had not seen: its folds' own, or else a test's.

    Without a kind the one that fits: a confusion matrix of classes, a scatter of numbers.
    """
    found = held_out(store, chain_id)
    title = name or f"chain {chain_id[-8:]}"
    if kind == "confusion" or (not kind and (found.are_labels or found.task == "classification")):
        rows = confusion_rows(found.measured, found.predicted, found.classes)
        return charts.confusion(rows, len(found.measured), title)
    if found.are_labels:
        raise NotFoundError(f"{kind} of chain", chain_id, "its targets are labels; draw their confusion")
    draw = charts.residuals if kind == "residuals" else charts.scatter
    return draw(sampled(found.measured, found.predicted), len(found.measured), title)


def sampled(measured: Values, predicted: Values) -> Rows:
    """At most `POINTS` pairs, evenly over the measured values, the largest residuals always among them."""
    order = np.argsort(measured, kind="stable")
    if len(order) > POINTS:
        largest = np.argsort(-np.abs(predicted - measured), kind="stable")[:LARGEST]
        others = order[~np.isin(order, largest)]
        even = others[np.linspace(0, len(others) - 1, POINTS - LARGEST).astype(int)]
        order = np.concatenate([even, largest])
    pairs = zip(measured[order].tolist(), predicted[order].tolist(), strict=True)
    return [{"measured": a, "predicted": b} for a, b in pairs]


def confusion_rows(measured: Values, predicted: Values, classes: Sequence[str]) -> Rows:
    """A row for each pair of classes, `share` of all samples of the actual one, which for a pair of equals is its
    recall; in the order of `classes`, beyond `CLASSES` classes the most frequent ones.
    """
    order: dict[Any, int] = {name: place for place, name in enumerate(classes)}
    values, places, counts = np.unique(np.concatenate([measured, predicted]), return_inverse=True, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:CLASSES].tolist()
    kept.sort(key=lambda place: (order.get(values[place], place), place))
    new = np.full(len(values), -1)
    new[kept] = np.arange(len(kept))
    actual, called = new[places[: len(measured)]], new[places[len(measured) :]]
    table, shown = np.zeros((len(kept), len(kept)), int), (actual >= 0) & (called >= 0)
    np.add.at(table, (actual[shown], called[shown]), 1)
    total = np.bincount(actual[actual >= 0], minlength=len(kept))
    names = [_class_name(values[place], classes) for place in kept]
    return [
        {"actual": a, "called": b, "n": int(n), "share": int(n) / max(int(whole), 1)}
        for a, row, whole in zip(names, table, total, strict=True)
        for b, n in zip(names, row, strict=True)
    ]


def _class_name(value: Any, classes: Sequence[str]) -> str:
    """A label as it is; of a number the class that it stands for."""
    if isinstance(value, str):
        return plain(value)
    return plain(classes[int(value)]) if classes else f"{value:g}"


def scores_of(found: Leaderboard, board: Board) -> pl.DataFrame:
    """The scores of all chains of one of the boards, with names as they are shown."""
    frame = found.scores.filter(dataset_name=board.dataset, metric=board.metric)
    shown = {}
    for name in ("preprocessings", "model_name"):
        values = frame[name].unique().drop_nulls().to_list()
        shown[name] = pl.col(name).replace({value: plain(value) for value in values if plain(value) != value})
    return frame.with_columns(**shown)


def of_board(store: Store, kind: str, board: Board, scores: pl.DataFrame) -> Chart:
    """A chart of all chains of a board, whose `scores` are these."""
    title = f"{plain(board.dataset)}, {plain(board.metric)}"
    if not scores.height:
        raise NotFoundError("score", kind, f"no chain of {board.dataset} has a score for all of its folds")
    if kind == "folds":
        return charts.folds(_fold_rows(store, board.frame), scores.height, title, plain(board.metric))
    rows: dict[str, Callable[[pl.DataFrame, Board], Rows]] = {
        "heatmap": _heatmap_rows, "scores": _score_rows, "boxes": _box_rows, "impact": _impact_rows
    }  # fmt: skip
    found = rows[kind](scores, board)
    if kind == "heatmap":
        return charts.heatmap(found, scores.height, title, plain(board.metric), board.higher_is_better)
    draw: Callable[[Rows, int, str, str], Chart] = getattr(charts, kind)
    return draw(found, scores.height, title, plain(board.metric))


def _heatmap_rows(frame: pl.DataFrame, board: Board) -> Rows:
    best = pl.col("val_score").max() if board.higher_is_better else pl.col("val_score").min()
    names = {"preprocessings": ROWS, "model_name": COLUMNS}
    for name, most in names.items():
        order = (
            frame.group_by(name).agg(best.alias("best")).sort("best", name, descending=[board.higher_is_better, False])
        )
        frame = frame.filter(pl.col(name).is_in(order[name].head(most).to_list()))
    grouped = (
        frame.group_by("preprocessings", "model_name")
        .agg(best.alias("score"))
        .sort("score", "preprocessings", "model_name", descending=[board.higher_is_better, False, False])
    )
    return [{"preprocessing": p or "none", "model": m or "", "score": s} for p, m, s in grouped.iter_rows()]


def _score_rows(frame: pl.DataFrame, board: Board) -> Rows:
    values = frame["val_score"].to_numpy()
    low, high = np.quantile(values, [0.0, 0.95] if not board.higher_is_better else [0.05, 1.0])
    counts, edges = np.histogram(
        np.clip(values, low, high),
        bins=min(BINS, max(5, len(values) // 3)),
        range=(low, high if high > low else low + 1),
    )
    return [
        {"start": float(a), "end": float(b), "n": int(n)} for a, b, n in zip(edges, edges[1:], counts, strict=False)
    ]


def _box_rows(frame: pl.DataFrame, board: Board) -> Rows:
    score = pl.col("val_score")
    ends = [
        score.min().alias("low"),
        *(score.quantile(q).alias(name) for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))),
    ]
    found = frame.group_by("model_name").agg(*ends, score.quantile(0.95).alias("high"))
    return (
        found.sort("median", "model_name", descending=[board.higher_is_better, False])
        .head(COLUMNS)
        .rename({"model_name": "model"})
        .to_dicts()
    )


def _impact_rows(frame: pl.DataFrame, board: Board) -> Rows:
    steps = {name: _steps(name) for name in frame["preprocessings"].unique().drop_nulls()}
    rows: Rows = []
    for step in sorted({each for found in steps.values() for each in found}):
        has = pl.col("preprocessings").is_in([name for name, found in steps.items() if step in found])
        with_, without = frame.filter(has)["val_score"], frame.filter(~has)["val_score"]
        if len(with_) and len(without):
            rows.append({"step": step, "difference": float(with_.median()) - float(without.median()), "n": len(with_)})  # type: ignore[arg-type]
    rows.sort(key=lambda row: (-row["difference"] if board.higher_is_better else row["difference"], row["step"]))
    return rows[:COLUMNS]


def _steps(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in re.split(r"[>|,]+(?![^(]*\))", text) if part.strip()))


def _fold_rows(store: Store, frame: pl.DataFrame) -> Rows:
    best = frame.filter(pl.col("val_score").is_not_null()).head(BEST)
    labels = {
        row["chain_id"]: f"{row['rank']}. {plain(row['preprocessings'])} {plain(row['model_name'])}"[:48]
        for row in best.to_dicts()
    }
    found = store.sql(_FOLDS, (list(labels),)).to_dicts()
    order = {chain: place for place, chain in enumerate(labels)}
    found.sort(key=lambda row: (order[row["chain_id"]], row["fold_id"]))
    return [{"chain": labels[row["chain_id"]], "fold": row["fold_id"], "score": row["score"]} for row in found]


def timeline(store: Store, run_id: str | None, dataset: str | None) -> Chart:
    """Pipelines that have ended, counted up over time."""
    found = store.sql(_ENDS.format(buckets=BUCKETS), (run_id, dataset)).to_dicts()
    if not found:
        raise NotFoundError("pipeline", "timeline", "no pipeline has ended yet")
    rows = [{**row, "time": f"{row['time'].isoformat()}Z"} for row in found]
    return charts.timeline(rows, found[-1]["done"] + found[-1]["failed"], "pipelines that have ended")
