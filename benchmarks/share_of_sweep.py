"""The store's share of a sweep of nirs4all 1.x by its legacy engine: the difference to the same sweep without a store.

    N4A_FAST_INSTALL=1 python share_of_sweep.py [TURNS] [WORKSPACE] [--sizes 10]     a Python that has nirs4all

In turns, within one process, each into a folder of its own: sweeps on the store, a copy of the workspace where one is
given, and sweeps on something that keeps no more than nirs4all itself asks for before the refit. So caches that the
store leaves cold, threads and collections that it causes count as well, and nothing is counted that would be there
without it. Each turn tells the seconds of both and the difference; at the end there are the median of these, and the
difference between the least of each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "src" / "n4a_fast" / "integrations" / "nirs4all_demo"))
from variants import Size, run_sweep


class Nothing:
    """What nirs4all asks of a store during a sweep; of what it saves, only what it asks for again is kept."""

    def __init__(self, workspace_path: Any, **_: Any) -> None:
        self.workspace_path = Path(workspace_path)
        self.array_store = self
        self._pipelines: dict[str, dict[str, Any]] = {}
        self._chains: dict[str, dict[str, Any]] = {}
        self._predictions: list[dict[str, Any]] = []

    def begin_pipeline(
        self, run_id: str, name: str, expanded_config: Any, generator_choices: Any, *_: Any, **__: Any
    ) -> str:
        row = {"pipeline_id": uuid4().hex, "name": name, "status": "running", "best_val": None, "metric": None}
        self._pipelines[row["pipeline_id"]] = row | {"configs": (expanded_config, generator_choices)}
        return str(row["pipeline_id"])

    def complete_pipeline(self, pipeline_id: str, best_val: Any, best_test: Any, metric: Any, duration_ms: Any) -> None:
        self._pipelines[pipeline_id] |= {"status": "completed", "best_val": best_val, "metric": metric}

    def get_pipeline(self, pipeline_id: str) -> dict[str, Any]:
        row = dict(self._pipelines[pipeline_id])
        config, choices = row.pop("configs")
        return {**row, "expanded_config": config, "generator_choices": choices}

    def save_chain(self, pipeline_id: str, steps: Any, model_step_idx: int, *texts: Any, **named: Any) -> str:
        chain = {"chain_id": uuid4().hex, "model_step_idx": model_step_idx, "branch_path": None, "source_index": None}
        names = ("model_class", "preprocessings")
        self._chains[pipeline_id] = (
            chain | dict(zip(names, texts, strict=False)) | {n: named[n] for n in names if n in named}
        )
        return str(chain["chain_id"])

    def get_chains_for_pipeline(self, pipeline_id: str) -> pl.DataFrame:
        return pl.DataFrame([self._chains[pipeline_id]])

    def save_prediction(self, **row: Any) -> str:
        if row["partition"] == "val":
            self._predictions.append(row)
        return uuid4().hex

    def query_predictions(self, pipeline_id: str, partition: str) -> pl.DataFrame:
        found = [row for row in self._predictions if row["pipeline_id"] == pipeline_id]
        names = ("val_score", "best_params")
        return pl.DataFrame(
            [{**{name: row[name] for name in names}, "best_params": json.dumps(row["best_params"])} for row in found]
        )

    def _fetch_pl(self, *_: Any) -> pl.DataFrame:
        return pl.DataFrame(
            [{name: value for name, value in row.items() if name != "configs"} for row in self._pipelines.values()]
        )

    def transaction(self) -> Any:
        return nullcontext(self)

    def begin_run(self, *_: Any, **__: Any) -> str:
        return uuid4().hex

    def register_existing_artifact(self, artifact_id: str, *_: Any, **__: Any) -> str:
        return artifact_id

    def __getattr__(self, name: str) -> Any:
        """Everything else does nothing; what nirs4all looks for under a private name is not there."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_, **__: 0


@contextmanager
def used_by_nirs4all(store: type) -> Iterator[None]:
    """Let nirs4all's modules use this class of stores."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("nirs4all") and hasattr(module, "WorkspaceStore")
    ]
    had = [module.WorkspaceStore for module in modules]
    for module in modules:
        module.WorkspaceStore = store  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, one in zip(modules, had, strict=True):
            module.WorkspaceStore = one  # type: ignore[attr-defined]


def sweep(store: type, size: Size, workspace: str | None) -> tuple[float, float, float]:
    """Seconds of processor time, and elapsed, of one sweep, and the score of its best model."""
    with TemporaryDirectory() as folder, used_by_nirs4all(store):
        place = str(shutil.copytree(workspace, f"{folder}/w")) if workspace else folder
        processor, elapsed = time.process_time(), time.perf_counter()
        result = run_sweep(place, size)
        return time.process_time() - processor, time.perf_counter() - elapsed, result.best_score


def in_turns(stores: tuple[type, type], size: Size, workspace: str | None, turns: int) -> Iterator[list[Any]]:
    """What `sweep` tells of both, turn by turn, each the first in every other one."""
    for turn in range(turns):
        order = (0, 1) if turn % 2 else (1, 0)
        told = {place: sweep(stores[place], size, workspace) for place in order}
        if told[0][2] != told[1][2]:
            raise SystemExit(f"they are no same sweep: the best score is {told[0][2]} and {told[1][2]}")
        yield [told[0], told[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("turns", type=int, nargs="?", default=3)
    parser.add_argument("workspace", nargs="?")
    parser.add_argument("--sizes", type=int, default=10)
    given = parser.parse_args()
    import nirs4all  # noqa: F401  # its import is no part of the sweep
    from nirs4all.pipeline.storage.workspace_store import WorkspaceStore

    stores = (WorkspaceStore, Nothing)
    for store in stores:  # what a first sweep loads
        sweep(store, Size(scatters=1, filters=1, sizes=2, engine="legacy"), given.workspace)
    shares, taken = [], []
    for told in in_turns(stores, Size(sizes=given.sizes, engine="legacy"), given.workspace, given.turns):
        (cpu, wall, _), (without_cpu, without_wall, _) = told
        taken.append((cpu, wall, without_cpu, without_wall))
        shares.append((1 - without_cpu / cpu, 1 - without_wall / wall))
        seconds = " ".join(f"{each:.2f}" for each in taken[-1])
        cpu, wall = shares[-1]
        print(f"with and without, processor and elapsed: {seconds}; share {cpu:.4f} {wall:.4f}", flush=True)
    cpu, wall = (statistics.median(column) for column in zip(*shares, strict=True))
    print(f"median of the shares: {cpu:.4f} of the processor time, {wall:.4f} of the elapsed")
    least = [min(column) for column in zip(*taken, strict=True)]
    print(f"share by the least of each: {1 - least[2] / least[0]:.4f}, {1 - least[3] / least[1]:.4f}")


if __name__ == "__main__":
    main()
