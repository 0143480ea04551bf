"""The demo through nirs4all: the same store, filled by nirs4all's own sweep.

Owns what is said about it. Promises that nirs4all has its own store back afterwards, and that a
refitted model whose replay differs from what nirs4all stored by more than `LIMIT` is a failure.
Leaves the sweep and the clock to `integrations`, the ranking to the store.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from n4a_fast import WorkspaceStore, install, uninstall
from n4a_fast.errors import ReplayError
from n4a_fast.integrations.nirs4all_demo.variants import SAMPLES, TRAINING, Size, spectra, timed_sweep

LIMIT = 1e-6  # nirs4all computes some steps in float32
SHOWN = 8
REFIT = """SELECT prediction_id, chain_id, preprocessings FROM predictions JOIN pipelines USING (pipeline_id)
WHERE run_id = ? AND fold_id = 'final' AND partition = 'test'"""


def run_nirs4all_demo(workspace: Path, console: Console, size: Size | None = None) -> str | None:
    """Run the sweep into `workspace` and show the outcome; what is wrong with it, or None.

    Raises UnsupportedVersionError without a supported nirs4all.
    """
    size = size or Size()
    install()
    try:
        console.print(
            f"\n[bold]n4a_fast demo, through nirs4all[/bold]: {size.variants} variants, 5 folds, {SAMPLES} made"
            f" spectra, workspace {escape(str(workspace))}\n  [dim]nirs4all runs as it is installed; n4a_fast.install()"
            " gave it this store.[/dim]"
        )
        told = timed_sweep(str(workspace), size)
    finally:
        uninstall()
    with WorkspaceStore(workspace) as store:
        run_id = store.list_runs(limit=1)["run_id"][0]
        console.print(
            f"  {told['predictions']:,} predictions in {told['wall']:.1f} s; the store took"
            f" {told['store_wall'] / told['wall']:.1%} of them\n"
        )
        console.print(repr(store.leaderboard(run=run_id, n=SHOWN)), markup=False, highlight=False, soft_wrap=True)
        return _replay_refit(store, run_id, console, size)


def _replay_refit(store: WorkspaceStore, run_id: str, console: Console, size: Size) -> str | None:
    """Compare the refitted model's replay with what nirs4all stored for the held-out spectra."""
    refits = store.sql(REFIT, (run_id,))
    if refits.is_empty():
        return f"run {run_id} has no refitted model"
    prediction_id, chain_id, preprocessings = refits.row(0)
    stored = np.asarray((store.get_prediction_arrays(prediction_id) or {})["y_pred"])
    try:
        replayed = store.replay_chain(chain_id, spectra(size.seed)[0][TRAINING:])
    except ReplayError:
        if version("nirs4all").startswith("0."):
            raise
        console.print(
            f"The refitted winner ({preprocessings}) brings the preprocessing of its folds, as models of this release"
            f" may: nirs4all.predict(chain_id={chain_id!r}, ...) runs it.\n",
            markup=False,
        )
        return None
    difference = float(np.max(np.abs(replayed - stored)))
    console.print(
        f"[bold]Replay[/bold] of the refitted winner ({escape(preprocessings)}) on {len(stored)} held-out spectra:\n"
        f"  largest difference to what nirs4all stored {difference:.1e} (limit {LIMIT:.0e})\n"
    )
    return (
        None
        if difference <= LIMIT
        else f"the replay of chain {chain_id} differs from what was stored by {difference:.3g}"
    )
