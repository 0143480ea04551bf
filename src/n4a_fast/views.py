"""`Run` and `Chain`: one run or chain of a store to look at, with what belongs to it in reach."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from n4a_fast.errors import NotFoundError
from n4a_fast.maintenance.progress import RunProgress
from n4a_fast.replay.serve.plan_report import PlanReport
from n4a_fast.values.notebook import never_raises, report_cell, report_text
from n4a_fast.values.texttable import number, plain

if TYPE_CHECKING:
    from n4a_fast.leaderboard import Leaderboard
    from n4a_fast.report.charts import Chart

_PATIENCE = 0.2  # seconds that showing a run may wait

_SHOWN = ("fold_id", "partition", "n_samples", "val_score", "test_score", "train_score")
_FOLDS = """SELECT fold_id, partition, val_score, test_score, train_score, n_samples, refit_context, prediction_id
FROM predictions WHERE chain_id = ? ORDER BY TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id, partition"""


class Source(Protocol):
    """The part of a store that views use."""

    @property
    def workspace_path(self) -> Path: ...
    def undrained(self, wait: float | None = None) -> AbstractContextManager[None]: ...
    def get_run(self, run_id: str) -> dict[str, Any] | None: ...
    def get_chain(self, chain_id: str) -> dict[str, Any] | None: ...
    def get_pipeline(self, pipeline_id: str) -> dict[str, Any] | None: ...
    def sql(self, query: str, params: Any = ()) -> pl.DataFrame: ...
    def leaderboard(self, metric: str | None = None, *, run: str | None = None, n: int | None = 20) -> Leaderboard: ...
    def progress(self, run_id: str | None = None, *, wait: float | None = None) -> RunProgress: ...
    def plot(self, kind: str, identifier: str | None = None) -> Chart: ...
    def replay_chain(self, chain_id: str, X: Any, wavelengths: Any = None) -> np.ndarray[Any, Any]: ...
    def replay_plan(self, chain_id: str) -> PlanReport: ...
    def estimator(self, chain: str = "@best") -> Any: ...
    def export_chain(self, chain_id: str, output_path: str | Path, format: str = "n4a") -> Path: ...


class Run:
    """A run: what it is called, how far it is, its leaderboard."""

    def __init__(self, store: Source, run_id: str) -> None:
        self._store, self.run_id = store, run_id

    @property
    def row(self) -> dict[str, Any]:
        """The stored row, its JSON as Python values; NotFoundError once the run is deleted."""
        found = self._store.get_run(self.run_id)
        if found is None:
            raise NotFoundError("run", self.run_id)
        return found

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def status(self) -> str:
        """running, completed or failed."""
        return str(self.row["status"])

    @property
    def best(self) -> Chain:
        """The first chain of the run's only board."""
        return self.leaderboard(n=1).best

    def leaderboard(self, metric: str | None = None, *, n: int | None = 20) -> Leaderboard:
        """The run's chains by rank; see `store.leaderboard`."""
        return self._store.leaderboard(metric, run=self.run_id, n=n)

    def progress(self) -> RunProgress:
        """How far the run is; nothing is written for it."""
        return self._store.progress(self.run_id)

    def __repr__(self) -> str:
        try:
            return repr(self._store.progress(self.run_id, wait=_PATIENCE))
        except Exception as error:  # a repr must not raise: the store may be closed, the run deleted
            return f"Run({self.run_id!r}): {error}"

    @never_raises
    def _repr_html_(self) -> str | None:
        from n4a_fast.report.cells import run_cell

        return run_cell(self._store.progress(self.run_id, wait=_PATIENCE))


class Chain:
    """A chain of steps to a model: its scores by fold, predictions on new spectra, charts, exports."""

    def __init__(self, store: Source, chain_id: str) -> None:
        self._store, self.chain_id = store, chain_id

    @property
    def row(self) -> dict[str, Any]:
        """The stored row, its JSON as Python values; NotFoundError once the chain is deleted."""
        found = self._store.get_chain(self.chain_id)
        if found is None:
            raise NotFoundError("chain", self.chain_id)
        return found

    @property
    def scores(self) -> pl.DataFrame:
        """A row for each of the chain's predictions: fold, partition, scores."""
        return self._store.sql(_FOLDS, (self.chain_id,))

    def predict(self, X: Any, wavelengths: Any = None) -> np.ndarray[Any, Any]:
        """Predictions on new spectra (n_samples, n_features); see `store.replay_chain`."""
        return self._store.replay_chain(self.chain_id, X, wavelengths)

    def plan(self) -> PlanReport:
        """How the chain is replayed; see `store.replay_plan`."""
        return self._store.replay_plan(self.chain_id)

    def estimator(self) -> Any:
        """The chain as a fitted estimator of scikit-learn; see `store.estimator`."""
        return self._store.estimator(self.chain_id)

    def plot(self, kind: str = "scatter") -> Chart:
        """A chart of the chain's predictions: scatter, residuals or confusion; see `store.plot`."""
        return self._store.plot(kind, self.chain_id)

    def export(self, path: str | Path, format: str = "n4a") -> Path:
        """The chain as one file that needs no store; see `store.export_chain`."""
        return self._store.export_chain(self.chain_id, path, format)

    def __str__(self) -> str:
        row = self.row
        steps = " > ".join(
            part for part in (plain(row["preprocessings"]), plain(row["model_class"]).rpartition(".")[2]) if part
        )
        return f"chain {self.chain_id}: {steps}"

    def __repr__(self) -> str:
        try:
            told, scores = self._at_once()
            folds = scores.filter(pl.col("partition") == "val", pl.col("refit_context").is_null())
            values = [f"{fold} {number(score)}" for fold, score in folds.select("fold_id", "val_score").iter_rows()]
            return report_text(told, [f"val by fold: {', '.join(values)}"] if values else [])
        except Exception as error:  # a repr must not raise: the store may be closed or busy, the chain deleted
            return f"Chain({self.chain_id!r}): {error}"

    @never_raises
    def _repr_html_(self) -> str | None:
        told, scores = self._at_once()
        return report_cell(told, scores.select(_SHOWN).to_dicts())

    def _at_once(self) -> tuple[str, pl.DataFrame]:
        """What and how good the chain is by what is in the tables now, if they are to be had at once."""
        with self._store.undrained(_PATIENCE):
            return str(self), self.scores
