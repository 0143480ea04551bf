"""`Predictions` of nirs4all 1.x filled from a store of ours, many rows at a time.

nirs4all fills it row by row and asks for every pipeline and chain. Here its own code makes those rows that have more
than scores and arrays, and the first of the plain ones; that one shows the form of a row in the release that is
installed, in which the other plain ones are made, their arrays and scores when they are looked at (`late_rows`). If
what we make of the first differs from what nirs4all made in anything but its time, nirs4all's own code makes them all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from n4a_fast.engine.workspace import Workspace
from n4a_fast.integrations.nirs4all.late_rows import Maker, Makers, late_rows
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
from n4a_fast.values import jsontext

Row = dict[str, Any]
Fill = Callable[..., None]

MODULE = "nirs4all.data.predictions"
_FILLS = "_populate_buffer_from_store"
_ASKS = "_restore_workspace_context"
_MADE = "created_at"  # when the row in memory was made
_OF_REFITS = ("final", "final_agg")  # whose scores nirs4all takes from each other
_TARGETS = ("y_true", "y_pred", "y_proba")
_INDICES = "sample_indices"
_ARRAYS = (*_TARGETS, _INDICES)
_BATCH = 16_384  # predictions that are let go together
_EMPTY: Makers = {"weights": lambda _: [], "metadata": lambda _: {}, "result_metadata": lambda _: {}}
_MORE = ("X", "spectra", "sample_metadata", "result_metadata")
_AS_STORED = (
    *("dataset_name", "model_name", "partition", "val_score", "test_score", "train_score", "metric", "task_type"),
    *("preprocessings", "branch_id", "refit_context", "prediction_id", "pipeline_id"),
)
_OTHERS = ("chain_id", "model_class", "fold_id", "n_samples", "n_features", "branch_name")
_READ = (*_AS_STORED, *_OTHERS)
_JSON = ("scores", "best_params")
_WORTH_IT = 16  # rows
_CHAINS = "SELECT chain_id, model_step_idx, branch_path FROM chains"
_PIPELINES = "SELECT pipeline_id, name FROM pipelines"
_RUNS = "SELECT pipeline_id, run_id FROM pipelines"
_RUN = "run of the pipeline"


def exchange(module: ModuleType) -> None:
    """Let the module's `Predictions` be filled from stores of ours; again is a no-op."""
    for name, change in ((_FILLS, _filling), (_ASKS, _together)):
        original = getattr(module.Predictions, name, None)
        if original is not None and not hasattr(original, "__wrapped__"):
            setattr(module.Predictions, name, change(original))


def give_back(module: ModuleType) -> None:
    """What `exchange` replaced."""
    for name in (_FILLS, _ASKS):
        original = getattr(getattr(module.Predictions, name, None), "__wrapped__", None)
        if original is not None:
            setattr(module.Predictions, name, original)


def _together(original: Fill) -> Fill:
    """nirs4all's method, which asks every pipeline for its run and each run once: one pipeline of a run will do."""

    @wraps(original)
    def ask(self: Any, store: Any, df: pl.DataFrame) -> None:
        if not isinstance(store, Store1x):
            return original(self, store, df)
        with store.read_together() as workspace:
            runs = dict(workspace.database.rows(_RUNS))
            run = df["pipeline_id"].replace_strict(runs, default=None, return_dtype=pl.String)
            first = df.with_columns(run.alias(_RUN)).unique([_RUN, "dataset_name"], keep="first", maintain_order=True)
            store._of_runs.read_ahead(workspace, first["pipeline_id"].unique().to_list(), chains=False)
            original(self, store, first.drop(_RUN))

    return ask


def _filling(original: Fill) -> Fill:
    @wraps(original)
    def fill(self: Any, store: Any, df: pl.DataFrame, *, load_arrays: bool = True) -> None:
        made = None
        if isinstance(store, Store1x):
            with _uncollected():
                made = _made(original, type(self), store, df, load_arrays)
        if made is None:
            original(self, store, df, load_arrays=load_arrays)
        else:
            self._buffer.extend(made)

    return fill


@contextmanager
def _uncollected() -> Iterator[None]:
    """Python's collector waits: everything that the block makes stays, and looking at it took a third of the time. It
    counts as old then, or the next object would make the collector look at all of it twice.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _made(original: Fill, kind: type, store: Store1x, df: pl.DataFrame, load_arrays: bool) -> list[Row] | None:
    """The rows of the frame; None where nirs4all has to make them all."""
    with store.read_together() as workspace:
        described = _described(store, df["prediction_id"].to_list()) if load_arrays else {}
        plain = ~(df["fold_id"].is_in(_OF_REFITS) | df["prediction_id"].is_in(_with_more(described)))
        if plain.sum() < _WORTH_IT:
            return None
        theirs = df.filter(~plain | (pl.int_range(len(df), eager=True) == plain.arg_max()))
        shown = kind()
        store._of_runs.read_ahead(workspace, theirs["pipeline_id"].unique().to_list(), chains=True)
        original(shown, store, theirs, load_arrays=load_arrays)
        form = shown._buffer[int((~plain)[: plain.arg_max()].sum())]
        made = _like(form, workspace, df.filter(plain), described if load_arrays else None)
    if not _is_same(dict(made[0]), form):
        return None
    made[0] = form
    of_plain, others = iter(made), iter([row for row in shown._buffer if row is not form])
    return [next(of_plain if is_plain else others) for is_plain in plain.to_list()]


def _like(form: Row, workspace: Workspace, df: pl.DataFrame, described: dict[str, Row] | None) -> list[Row]:
    """Rows in the form of one of them; without arrays if nothing is `described`."""
    names = dict(workspace.database.rows(_PIPELINES))
    chains = {chain: (step, path) for chain, step, path in workspace.database.rows(_CHAINS)}
    made: list[Row] = []
    for batch in df.iter_slices(_BATCH):
        arrays = {} if described is None else _arrays(workspace, batch["prediction_id"].to_list(), described)
        makers = {**{name: _array_maker(arrays.get(name, _none)) for name in _TARGETS}, **_EMPTY}
        makers[_INDICES] = _list_maker(arrays.get(_INDICES, _none))
        makers |= {name: _decoder(batch[name]) for name in _JSON}
        made += _filled(form, _columns(batch, names, chains), makers)
    return made


def _filled(form: Row, columns: dict[str, list[Any]], makers: Makers) -> list[Row]:
    """A row for each place of the columns; what all have is filled in once."""
    count = len(columns["id"])
    same = {name: column[0] for name, column in columns.items() if column.count(column[0]) == count}
    shared = {name: value for name, value in same.items() if not isinstance(value, list)}
    rows: list[Row] = [*late_rows({**form, **shared}, makers, count)]
    for name in columns.keys() - shared.keys():
        for row, value in zip(rows, columns[name], strict=True):
            row[name] = value
    return rows


def _described(store: Store1x, prediction_ids: list[str]) -> dict[str, Row]:
    """What there is of predictions that have more than arrays of numbers."""
    arrays = store.array_store
    return arrays.load_batch(arrays.described_among(prediction_ids))


def _with_more(arrays: dict[str, Row]) -> list[str]:
    """Predictions with more than the arrays of scores."""
    return [each for each, found in arrays.items() if any(_is_given(found[name]) for name in _MORE)]


def _is_given(value: Any) -> bool:
    return value is not None and len(value) > 0


def _arrays(workspace: Workspace, prediction_ids: list[str], described: dict[str, Row]) -> dict[str, Maker]:
    """By name of an array, what finds that of the prediction at a place, its own to write to; None for none."""
    loaded = workspace.arrays.load_existing([each for each in prediction_ids if each not in described], _ARRAYS)
    places: Sequence[int | None] = range(len(prediction_ids))
    if (found := loaded.prediction_ids) != prediction_ids:
        rows = {each: row for row, each in enumerate(found)}
        places = [rows.get(each) for each in prediction_ids]

    def finder(name: str) -> Maker:
        views = getattr(loaded, name)

        def find(place: int) -> Any:
            row = places[place]
            if row is None:
                return described.get(prediction_ids[place], {}).get(name)
            return None if (view := views[row]) is None else view.copy()

        return find

    return {name: finder(name) for name in _ARRAYS}


def _none(place: int) -> None:
    """The array of a prediction without any."""


def _array_maker(find: Maker) -> Maker:
    return lambda place: np.array([]) if (found := find(place)) is None else found


def _list_maker(find: Maker) -> Maker:
    return lambda place: [] if (found := find(place)) is None else found.tolist()


def _decoder(column: pl.Series) -> Maker:
    texts = column.to_arrow()  # in a forked child, Polars may wait for threads that are not there
    return lambda place: jsontext.decode(texts[place].as_py() or None) or {}


def _columns(df: pl.DataFrame, names: Row, chains: dict[str, tuple[int, str | None]]) -> dict[str, list[Any]]:
    """What differs from row to row, by its name in a row; `names` of pipelines, of chains their step and their path."""
    given = {name: _listed(df[name]) for name in _READ}
    of_chains = [chains.get(chain, (0, None)) for chain in given["chain_id"]]
    return {
        **{name: given[name] for name in _AS_STORED},
        "step_idx": [step for step, _ in of_chains],
        "branch_path": [path and jsontext.decode(path) for _, path in of_chains],
        "id": given["prediction_id"],
        "pipeline_uid": given["pipeline_id"],
        "config_name": [names.get(pipeline, "") for pipeline in given["pipeline_id"]],
        "model_classname": given["model_class"],
        "fold_id": given["fold_id"],
        **{name: [text or "" for text in given[name]] for name in ("chain_id", "branch_name")},
        **{name: [number or 0 for number in given[name]] for name in ("n_samples", "n_features")},
        _MADE: [datetime.now().isoformat()] * len(df),
    }


def _listed(column: pl.Series) -> list[Any]:
    return [column[0]] * len(column) if column.n_unique() == 1 else column.to_list()


def _is_same(ours: Row, theirs: Row) -> bool:
    """Whether two rows have the same keys in the same order, and equal values but for the time."""
    return list(ours) == list(theirs) and all(
        type(ours[name]) is type(theirs[name]) and np.array_equal(ours[name], theirs[name])
        if isinstance(theirs[name], np.ndarray)
        else ours[name] == theirs[name]
        for name in theirs
        if name != _MADE
    )
