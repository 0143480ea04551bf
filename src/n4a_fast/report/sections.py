"""The sections of the report in their order: verdicts and leaderboards, charts, errors, disk, the best chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from n4a_fast.artifacts.checkup import Progress, reported
from n4a_fast.errors import NotFoundError, StoreError
from n4a_fast.predictions.ranking import RULE, Board
from n4a_fast.report import figures
from n4a_fast.report.charts import Chart, can_draw, prefixed
from n4a_fast.report.html import Raw, counted, figure, section, table, text
from n4a_fast.values.texttable import number, plain

if TYPE_CHECKING:
    import polars as pl

    from n4a_fast.leaderboard import Leaderboard

Drawing = tuple[Callable[[], Chart], str]  # makes a chart; what its ids begin with

BOARDS, ROWS, BEST, ERRORS, NUMBERS = 8, 100, 6, 20, 60
_RUNS = """SELECT r.name, r.status, r.created_at, r.completed_at,
    count(p.pipeline_id) FILTER (p.status = 'completed') AS done,
    count(p.pipeline_id) FILTER (p.status = 'failed') AS failed, r.run_id
FROM runs r LEFT JOIN pipelines p ON p.run_id = r.run_id WHERE (?1 IS NULL OR r.run_id = ?1)
GROUP BY r.name, r.status, r.created_at, r.completed_at, r.run_id ORDER BY r.created_at DESC, r.run_id DESC LIMIT 20"""
_ERRORS = """SELECT coalesce(error, '') AS error, count(*) AS n, min(name) AS example FROM pipelines
WHERE status = 'failed' AND (?1 IS NULL OR run_id = ?1) GROUP BY error ORDER BY n DESC, error LIMIT ?2"""
_ARTIFACTS = """SELECT artifact_type, operator_class, count(*) AS n, sum(size_bytes)::BIGINT AS nbytes FROM artifacts
GROUP BY artifact_type, operator_class ORDER BY nbytes DESC, operator_class LIMIT 20"""
_COUNTS = " UNION ALL ".join(
    f"SELECT {place} AS place, '{name}' AS name, count(*) AS n FROM {name}"
    for place, name in enumerate(("runs", "pipelines", "chains", "predictions", "artifacts"))
)
_OF_CHAIN = """SELECT coalesce(fold_id, ''), partition, coalesce(task_type, ''), n_samples, val_score, test_score,
    train_score
FROM predictions WHERE chain_id = ? ORDER BY TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id, partition LIMIT 200"""
_SCORES = {"test": "test_score", "train": "train_score", "final": "final_score"}


def head(store: Any, boards: Leaderboard, run: str | None) -> str:
    """What the report is about: counts, runs, the rule."""
    counts = ", ".join(
        counted(n, name) for name, n in store.sql(f"SELECT name, n FROM ({_COUNTS}) ORDER BY place").iter_rows()
    )
    run_id = store.find(run, "run") if run else None
    rows = [
        (plain(a), b, _minute(c), _minute(d), e, f, plain(g)[-8:])
        for a, b, c, d, e, f, g in store.sql(_RUNS, (run_id,)).iter_rows()
    ]
    runs = (
        table(("run", "status", "started", "ended", "done", "failed", "id"), rows, "runs", "runs, newest first")
        if rows
        else ""
    )
    unranked = "".join(
        f"<p>Not ranked, because its direction is not known: {text(name)}.</p>" for name in boards.unranked
    )
    return f'<p>{text(counts)}</p><p class="rule">{text(RULE)}</p>{unranked}{runs}'


def sections(
    store: Any, leaderboard: Leaderboard, run: str | None, with_charts: bool, progress: Progress | None
) -> str:
    """All sections after the head; `progress` is told how many charts are drawn, and of how many."""
    drawn = with_charts and can_draw()
    shown = leaderboard.boards[:BOARDS]
    scores = [figures.scores_of(leaderboard, board) for board in shown]
    drawings = [
        _drawings(store, board, of_all, place, len(shown)) if drawn else []
        for place, (board, of_all) in enumerate(zip(shown, scores, strict=True))
    ]
    pictures = iter(reported([drawing for of_board in drawings for drawing in of_board], progress, step=1))
    parts = []
    for place, board in enumerate(shown):
        title = f"{plain(board.dataset)} by {plain(board.metric)}"
        drawn_here = "".join(_one(*next(pictures)) for _ in drawings[place])
        content = f'{_verdict(board, scores[place])}{_board_table(board)}<div class="charts">{drawn_here}</div>'
        parts.append(section(title, content, f"board-{place}"))
    if not shown:
        parts.append(section("Leaderboard", "<p>No chain of a completed pipeline is ranked yet.</p>", "board-0"))
    rest = "".join(f"<p>{_sentence(board)}</p>" for board in leaderboard.boards[BOARDS:])
    parts.append(section("More data sets and metrics", rest, "more"))
    run_id = store.find(run, "run") if run else None
    if drawn:
        parts.append(section("Time", _one(lambda: figures.timeline(store, run_id, None), "time"), "time"))
    parts.append(section("Errors", _errors(store, run_id), "errors"))
    parts.append(section("Artifacts and disk", _disk(store), "disk"))
    parts.append(
        section("Best chain", "".join(_chain(store, board) for board in shown[:2] if board.frame.height), "best")
    )
    return "\n".join(part for part in parts if part)


def _sentence(board: Board) -> str:
    return f"{text(board.dataset)}, {text(board.metric)} ({_way(board)}): best {_best(board)}"


def _way(board: Board) -> str:
    return "higher is better" if board.higher_is_better else "lower is better"


def _best(board: Board) -> str:
    best = board.frame.row(0, named=True)
    name = " > ".join(part for part in (plain(best["preprocessings"]), plain(best["model_name"])) if part)
    score = "no whole set of folds" if best["val_score"] is None else _with_spread(best)
    return f"{score} by {text(name)}"


def _with_spread(row: dict[str, Any]) -> str:
    spread = "" if row["val_sd"] is None else f" ± {number(row['val_sd'], 2)}"
    return f"{number(row['val_score'])}{spread}"


def _verdict(board: Board, of_all: pl.DataFrame) -> str:
    best = board.frame.row(0, named=True)
    near = ""
    if best["val_score"] is not None and best["val_sd"] is not None:
        within = int(((of_all["val_score"] - best["val_score"]).abs() <= best["val_sd"]).sum()) - 1
        near = f"; {'no' if not within else f'{within:,}'} other{'s' * (within > 1)} within one standard deviation"
    states = ((board.finished, "finished"), (board.running, "running"), (board.failed, "failed"))
    pipelines = ", ".join(f"{n:,} {state}" for n, state in states if n)
    counts = f"{counted(board.chains, 'chains')}; pipelines: {pipelines}"
    incomplete = f"; {board.incomplete:,} with a missing or NaN fold ranked last" if board.incomplete else ""
    best_of = f'<p class="verdict">Best: {_best(board)}{near}.</p>'
    return f'{best_of}<p class="note">{_way(board).capitalize()}. {counts}{incomplete}.</p>'


def _board_table(board: Board) -> str:
    frame = board.frame.head(ROWS)
    shown = {head: name for head, name in _SCORES.items() if frame[name].drop_nulls().len()}
    rows = []
    for row in frame.to_dicts():
        score = "-" if row["val_score"] is None else Raw(_with_spread(row), row["val_score"])
        scores = [_missing(row[name]) for name in shown.values()]
        identifier = Raw(f'<code title="{text(row["chain_id"])}">{text(row["chain_id"][-8:])}</code>')
        status = "" if row["run_status"] == "completed" else f" ({row['run_status']})"
        names = (plain(row["preprocessings"]), plain(row["model_name"]))
        rows.append((row["rank"], score, *names, *scores, _folds(row), identifier, plain(row["run_name"]) + status))
    told = f"the best {len(rows):,} of {board.chains:,}" if len(rows) < board.chains else f"all {len(rows):,}"
    heads = ("#", "val ± sd", "preprocessing", "model", *shown, "folds", "chain", "run")
    return table(heads, rows, "board", f"leaderboard, {told} chains")


def _folds(row: dict[str, Any]) -> Any:
    if not row["missing_folds"]:
        return row["folds"]
    return f"{max(row['folds'] - row['missing_folds'], 0)} of {max(row['folds'], row['missing_folds'])}"


def _missing(value: float | None) -> Any:
    return "-" if value is None else value


def _drawings(store: Any, board: Board, of_all: pl.DataFrame, place: int, boards: int) -> list[Drawing]:
    """The charts of a board: of its best chains, then of all of them."""
    best = board.frame.head(max(1, BEST // boards))
    found: list[Drawing] = []
    for number_, row in enumerate(best.to_dicts()):
        parts = (plain(row["preprocessings"]), plain(row["model_name"]))
        name = f"{row['rank']}. " + " > ".join(part for part in parts if part)
        for kind in _kinds(row["task_type"]) if not number_ else ("",):
            prefix = f"b{place}c{number_}{kind[:1]}"
            found.append((partial(figures.of_chain, store, kind, row["chain_id"], name), prefix))
    return found + [
        (partial(figures.of_board, store, kind, board, of_all), f"b{place}{kind}") for kind in figures.OF_BOARD
    ]


def _kinds(*tasks: str) -> tuple[str, ...]:
    """The charts of a chain with such tasks: the one that fits its targets, and of numbers the residuals."""
    return ("",) if "classification" in tasks else ("", "residuals")


def _one(make: Callable[[], Chart], prefix: str) -> str:
    """A figure, or nothing where there is nothing to draw."""
    try:
        chart = make()
    except NotFoundError:
        return ""
    unit = "samples" if chart.kind in figures.OF_CHAIN else "pipelines" if chart.kind == "timeline" else "chains"
    part = f"{chart.points:,} of " if chart.kind in ("scatter", "residuals") and chart.points < chart.of else ""
    shown = f" ({part}{chart.of:,} {unit})"
    rows = chart.rows[:NUMBERS]
    heads = list(rows[0]) if rows else []
    svg = prefixed(chart.svg("currentColor"), prefix)
    return figure(svg, f"{_TITLES[chart.kind]}: {chart.title}{shown}", heads, [list(row.values()) for row in rows])


_TITLES = {
    "scatter": "Predicted against measured",
    "residuals": "Residuals",
    "confusion": "Confusion matrix",
    "heatmap": "Preprocessing and model",
    "scores": "Distribution of scores",
    "boxes": "Scores by model",
    "folds": "Scores by fold",
    "timeline": "Over time",
    "impact": "Impact of preprocessing steps",
}


def _errors(store: Any, run_id: str | None) -> str:
    rows = [(n, plain(error), plain(name)) for error, n, name in store.sql(_ERRORS, (run_id, ERRORS)).iter_rows()]
    return table(("pipelines", "error", "for example"), rows, caption="failed pipelines by error") if rows else ""


def _disk(store: Any) -> str:
    rows = [(plain(a), _class(b), n, nbytes) for a, b, n, nbytes in store.sql(_ARTIFACTS).iter_rows()]
    sizes = store.stats().nbytes
    told = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes.items())
    listed = table(("type", "class", "artifacts", "bytes"), rows, caption="artifacts by class") if rows else ""
    return f"<p>{text(told)}</p>{listed}"


def _class(name: str | None) -> str:
    """A class without its module."""
    return plain(name).rpartition(".")[2]


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _chain(store: Any, board: Board) -> str:
    best = board.frame.row(0, named=True)
    facts = {"chain": best["chain_id"], "run": best["run_id"], "parameters": best["best_params"]}
    chain = store.get_chain(best["chain_id"])
    return f"<h3>{_sentence(board)}</h3>{chain_in_full(store, chain, facts) if chain else ''}"


def chain_in_full(store: Any, chain: dict[str, Any], facts: dict[str, Any]) -> str:
    """Facts, steps and replay of a chain, and the lines that predict with it."""
    chain_id = chain["chain_id"]
    steps = [
        (
            step.get("step_idx"),
            _class(step.get("operator_class")),
            plain(json.dumps(step.get("params") or {}, default=str)),
        )
        for step in chain["steps"] or []
    ]
    facts = {**facts, "model": chain["model_class"], "preprocessing": chain["preprocessings"]}
    told = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in facts.items() if value)
    opened = f"with WorkspaceStore.open_readonly({str(store.workspace_path.resolve())!r}) as store:"
    call = f"y = store.replay_chain({chain_id!r}, X)"
    lines = "".join(f"{text(line)}\n" for line in ("from n4a_fast import WorkspaceStore", opened))
    listed = table(("step", "operator", "parameters"), steps, caption="steps") if steps else ""
    predict = f"<p>To predict with it:</p><pre>{lines}    {text(call)}</pre>"
    return f"<dl>{told}</dl>{listed}{_plan(store, chain_id)}{predict}"


def chain_sections(store: Any, chain_id: str, with_charts: bool) -> str:
    """A chain alone: its charts, its scores by fold, and itself in full; NotFoundError for one that is not there."""
    chain = store.get_chain(store.find(chain_id, "chain"))
    pipeline = store.get_pipeline(chain["pipeline_id"])
    scores = [tuple(_missing(each) for each in row) for row in store.sql(_OF_CHAIN, (chain["chain_id"],)).iter_rows()]
    kinds = _kinds(*(row[2] for row in scores))
    name = " > ".join(part for part in (plain(chain["preprocessings"]), plain(chain["model_class"])) if part)
    charts = [partial(figures.of_chain, store, kind, chain["chain_id"], name) for kind in kinds if with_charts]
    drawn = "".join(_one(make, f"c{place}") for place, make in enumerate(charts))
    heads = ("fold", "partition", "task", "samples", "val", "test", "train")
    listed = table(heads, scores, caption="scores by fold") if scores else ""
    facts = {"chain": chain["chain_id"], "run": pipeline["run_id"], "pipeline": pipeline["name"]}
    return f'<div class="charts">{drawn}</div>{listed}{chain_in_full(store, chain, facts)}'


def _plan(store: Any, chain_id: str) -> str:
    try:
        plan = store.replay_plan(chain_id)
    except StoreError as error:
        return f"<p>{text(str(error))}</p>"
    state = "compiled to one linear map" if plan.compiled else "replayed step by step" if plan.steps else ""
    return f"<p>Replay: {text(state)}.</p>" if state else ""
