"""The demo: real spectra, a sweep, a leaderboard, a replay of all chains, two plots.

Owns the order of things and what is said about them. Promises that it goes through the public
API alone, that a second run in the same workspace adds a run, and that a replay which differs
from what was stored by more than `LIMIT` is reported as a failure. Leaves fitting to `sweep`
and looks to `plots`.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from n4a_fast import WorkspaceStore
from n4a_fast.cli import plots
from n4a_fast.cli.datasets import Array, Dataset, load_coffee, load_fermentation
from n4a_fast.cli.sweep import METRICS, store_variant, variants_for
from n4a_fast.leaderboard import Leaderboard, board_text
from n4a_fast.report import ReportFile

FOLDS = 5
LIMIT = 1e-9  # float64 sums in another order differ by 1e-13; a wrong artifact differs by far more
SHOWN = 8
_AVERAGED = """SELECT chain_id, prediction_id FROM predictions
WHERE fold_id = 'avg' AND partition = 'test' AND chain_id IN (SELECT unnest(?))"""
EXAMPLE_SQL = (
    "SELECT preprocessings, model_name, val_score, test_score FROM predictions "
    "WHERE dataset_name = 'fermentation' AND fold_id = 'avg' AND partition = 'test' ORDER BY val_score LIMIT 5"
)
LEGEND = (
    "[dim]val: mean of the folds, ranks the variants; test: mean of the fold models' scores on held-out spectra. "
    "Band: 950-1200 cm-1, Linear: linear baseline, SG1 and SG2: Savitzky-Golay derivatives, "
    "SNV and MSC: scatter corrections.[/dim]"
)


@dataclass(frozen=True, slots=True)
class Replay:
    """The chains of a data set replayed in one call, how far they are from the stored predictions, and the best one's
    plot.
    """

    dataset: Dataset
    prediction_id: str
    chain_id: str
    name: str
    chains: int
    seconds: float
    worst: str  # the chain whose replay is farthest from what was stored
    difference: float
    plot: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo run left behind."""

    run_id: str
    leaderboards: dict[str, pl.DataFrame]
    replays: list[Replay]

    @property
    def complaint(self) -> str | None:
        """What is wrong with the first replay that does not reproduce what was stored; None when all do."""
        for replay in self.replays:
            if not replay.difference <= LIMIT:  # so that NaN is a complaint too
                place = f"the replay of chain {replay.worst} ({replay.dataset.name})"
                return f"{place} differs from what was stored by {replay.difference:.3g}, more than {LIMIT:.0e}"
        return None


def run_demo(workspace: Path, console: Console, *, variants: int | None = None) -> Outcome:
    """Sweep both data sets into `workspace` and show the outcome; `variants` caps how many of each."""
    # more BLAS threads than one make these small fits up to 50 times slower on busy cores
    with threadpool_limits(limits=1), WorkspaceStore(workspace) as store:
        began = time.perf_counter()
        datasets = [load_fermentation(), load_coffee()]
        _introduce(console, datasets, workspace)
        run_id = _sweep(store, console, datasets, variants)
        console.print(f"  swept and stored in {time.perf_counter() - began:.1f} s\n")
        leaderboards = {
            dataset.name: _with_predictions(store, leaderboard(store, run_id, dataset)) for dataset in datasets
        }
        for dataset in datasets:
            for board in leaderboard(store, run_id, dataset, SHOWN).boards:
                text = f"{dataset.title}: best {SHOWN} of {board.chains}\n{board_text(board, console.width)[0]}\n"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        _tell(console, LEGEND)
        replays = [_replay_all(store, workspace, dataset, leaderboards[dataset.name]) for dataset in datasets]
        outcome = Outcome(run_id, leaderboards, replays)
        _show_replays(console, outcome)
        report = store.report(workspace / "report.html", title="n4a_fast demo")
    if outcome.complaint is None:
        _show_places(console, workspace, outcome)
        _show_report(console, report)
    return outcome


def leaderboard(store: WorkspaceStore, run_id: str, dataset: Dataset, n: int | None = None) -> Leaderboard:
    """The run's variants on this data set, best first."""
    return store.leaderboard(METRICS[dataset.task], run=run_id, dataset=dataset.name, n=n)


def _with_predictions(store: WorkspaceStore, board: Leaderboard) -> pl.DataFrame:
    """The board's rows with the id of what each chain predicted for the held-out spectra, all folds together."""
    averaged = store.sql(_AVERAGED, (board.frame["chain_id"].to_list(),))
    return board.frame.join(averaged, on="chain_id", maintain_order="left")


def _sweep(store: WorkspaceStore, console: Console, datasets: Sequence[Dataset], limit: int | None) -> str:
    """Store every variant of every data set as one run; its id. An interrupted run is marked as failed."""
    described = [
        {"name": dataset.name, "hash": dataset.hash, "task": dataset.task, "classes": list(dataset.classes)}
        for dataset in datasets
    ]
    run_id = store.begin_run("demo", {"folds": FOLDS}, described)
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            for dataset in datasets:
                variants = variants_for(dataset)[:limit]
                task = progress.add_task(f"{dataset.name:<12}", total=len(variants))
                for number, variant in enumerate(variants, start=1):
                    store_variant(store, run_id, dataset, variant, number, FOLDS)
                    progress.advance(task)
    except BaseException as error:  # an interrupt too must not leave the run "running"
        store.fail_run(run_id, f"{type(error).__name__}: {error}".rstrip(": "))
        raise
    store.complete_run(
        run_id,
        {
            dataset.name: {"best_val": _best_val(store, run_id, dataset), "metric": METRICS[dataset.task]}
            for dataset in datasets
        },
    )
    return run_id


def _best_val(store: WorkspaceStore, run_id: str, dataset: Dataset) -> float:
    return float(leaderboard(store, run_id, dataset, 1).frame["val_score"][0])


def _replay_all(store: WorkspaceStore, workspace: Path, dataset: Dataset, ranked: pl.DataFrame) -> Replay:
    """Replay all chains at once from what is stored, compare them with their stored predictions, and plot the best
    one.
    """
    chains, columns = ranked["chain_id"].to_list(), ("y_pred", "y_proba") if dataset.classes else ("y_pred",)
    stored = store.load_arrays(ranked["prediction_id"].to_list(), columns=columns)
    began = time.perf_counter()
    found = np.asarray(store.replay_chains(chains, dataset.X_test))
    seconds = time.perf_counter() - began
    differences = [
        _largest_difference(replayed, np.asarray(y_pred)) for replayed, y_pred in zip(found, stored.y_pred, strict=True)
    ]
    if dataset.classes:
        proba = np.asarray(store.replay_chains(chains, dataset.X_test, return_proba=True))
        differences += [
            _largest_difference(replayed, np.asarray(y_proba))
            for replayed, y_proba in zip(proba, stored.y_proba, strict=True)
        ]
    farthest = int(np.argmax(differences))  # NaN counts as farthest
    best = ranked.row(0, named=True)
    name = f"{best['preprocessings']}, {best['model_name']}"
    path, title = workspace / f"demo_{dataset.name}.png", f"{dataset.title}\n{name}"
    if dataset.classes:
        plots.plot_confusion(path, dataset, title, found[0])
    else:
        course = store.replay_chain(best["chain_id"], dataset.course.X) if dataset.course else None
        plots.plot_regression(path, dataset, title, found[0], course)
    return Replay(
        dataset,
        best["prediction_id"],
        best["chain_id"],
        name,
        len(chains),
        seconds,
        chains[farthest % len(chains)],
        differences[farthest],
        path,
    )


def _largest_difference(replayed: Array, stored: Array) -> float:
    """Largest absolute difference; infinite when the shapes differ."""
    return float(np.max(np.abs(replayed - stored))) if replayed.shape == stored.shape else float("inf")


# -- what is said ------------------------------------------------------------------------------


def _introduce(console: Console, datasets: Sequence[Dataset], workspace: Path) -> None:
    state = (
        "adding a run to" if (workspace / "artifacts").is_dir() and any((workspace / "artifacts").iterdir()) else "new"
    )
    console.print(
        f"\n[bold]n4a_fast demo[/bold]: real spectra from chemotools, {FOLDS} folds, workspace {escape(str(workspace))}"
        f" ({state})\n"
    )
    for dataset in datasets:
        train, test = len(dataset.y_train), len(dataset.y_test)
        _tell(console, f"[bold]{dataset.name}[/bold]: {dataset.title}; {train} spectra to train on, {test} held out", 0)
    _tell(
        console,
        "[dim]The running fermentation was recorded every 1.25 min; each HPLC sample is held against the spectrum"
        " nearest in time. Its last three spectra are constant and left out.[/dim]",
    )


def _tell(console: Console, text: str, below: int = 1) -> None:
    """A paragraph, wrapped where the terminal ends."""
    console.print(Padding(text, (0, 0, below, 2), expand=False))


def _show_replays(console: Console, outcome: Outcome) -> None:
    console.print("[bold]Replay[/bold] of all chains from the stored artifacts, on the held-out spectra:")
    for replay in outcome.replays:
        what = "labels and probabilities" if replay.dataset.classes else "predictions"
        done = f"{replay.chains} chains in one call, {replay.seconds:.2f} s; best: {escape(replay.name)}"
        _tell(console, f"[bold]{replay.dataset.name}[/bold]: {done}", 0)
        _tell(
            console,
            f"{what}: largest difference to what was stored {replay.difference:.1e} (limit {LIMIT:.0e})",
            0,
        )


def _show_places(console: Console, workspace: Path, outcome: Outcome) -> None:
    place = shlex.quote(str(workspace))
    program = _program()
    places = {workspace / "store.duckdb": "runs, pipelines, chains, predictions with arrays, logs"}
    places |= {workspace / "artifacts": "fitted transformers and fold models, named by their content"}
    places |= {replay.plot: f"plot of {replay.dataset.name}, replayed" for replay in outcome.replays}
    width = max(len(str(path)) for path in places)
    lines = [
        "",
        "Where everything lies",
        *(f"  {path!s:<{width}}  {what}" for path, what in places.items()),
        "",
        "Look at it",
        f"  {program} top {place}",
        f"  {program} show {place} {outcome.replays[0].chain_id[-8:]}",
        f'  {program} sql {place} "{EXAMPLE_SQL}"',
        "",
        "or with DuckDB 2.0 or later, in Python",
        "  import duckdb",
        f"  print(duckdb.connect({str(workspace / 'store.duckdb')!r}, read_only=True).sql('SELECT * FROM runs'))",
        "",
    ]
    for line in lines:  # commands are to be copied: no markup, no wrapping
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_report(console: Console, report: ReportFile) -> None:
    """Where the report is, and how to look at it from here or from another machine."""
    path = report.path.resolve()
    lines = [
        f"The report: leaderboards, charts and the best chain in one file ({report.nbytes / 1000:,.0f} kB)",
        f"  {path}",
        "Open it in any browser, which needs no network; from another machine, copy the file first:",
        f"  {path.as_uri()}",
        f"  scp {platform.node()}:{shlex.quote(str(path))} .",
        f"or follow a sweep in the browser while it runs{_what_ui_needs()}:",
        f"  {_program()} ui {shlex.quote(str(path.parent))}",
        "",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _program() -> str:
    """What to type for this command line: it may lie in an environment that is not active."""
    if shutil.which("n4a-fast"):
        return "n4a-fast"
    script = Path(sys.executable).with_name("n4a-fast")
    return _typed(script) if script.exists() else f"{_typed(Path(sys.executable))} -m n4a_fast"


def _what_ui_needs() -> str:
    """What to install into this environment for `ui`, unless it is there; the installed package needs no index."""
    if find_spec("starlette") and find_spec("uvicorn"):
        return ""
    pip = "pip" if shutil.which("n4a-fast") else f"{_typed(Path(sys.executable))} -m pip"
    return f" ({pip} install 'n4a_fast[ui]')"


def _typed(path: Path) -> str:
    return shlex.quote(str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path))
