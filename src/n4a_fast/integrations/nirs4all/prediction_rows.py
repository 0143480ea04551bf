"""`Predictions` of nirs4all 1.x filled from a store of ours, many rows at a time.

nirs4all fills it row by row and asks for every pipeline and chain. Here its own code makes those rows that have more
than scores and arrays, and the first of the plain ones; that one shows the form of a row in the release that is
installed, in which the other plain ones are made. If what we make of it differs from what nirs4all made in
anything but its time, nirs4all's own code makes them all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from itertools import repeat
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from n4a_fast.engine.workspace import Workspace
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
_BATCH = 16_384  # predictions whose arrays are there twice meanwhile
_MORE = ("X", "spectra", "sample_metadata", "result_metadata")
_AS_STORED = (
    *("dataset_name", "model_name", "partition", "val_score", "test_score", "train_score", "metric", "task_type"),
    *("preprocessings", "branch_id", "refit_context", "prediction_id", "pipeline_id"),
)
_OTHERS = ("chain_id", "model_class", "fold_id", "n_samples", "n_features", "branch_name")
_READ = (*_AS_STORED, *_OTHERS, "scores", "best_params")
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
        theirs = ~plain | (pl.int_range(len(df), eager=True) == plain.arg_max())
        shown = kind()
        original(shown, store, df.filter(theirs), load_arrays=load_arrays)
        by_place = dict(zip(theirs.arg_true(), shown._buffer, strict=True))
        form = by_place[plain.arg_max()]
        ours = df.filter(plain)
        arrays = _arrays(workspace, ours["prediction_id"].to_list(), described) if load_arrays else {}
        columns = _columns(workspace, ours, arrays)
    made = [form.copy() for _ in range(len(ours))]
    for name, column in columns.items():
        for row, value in zip(made, column, strict=True):
            row[name] = value
    if not _is_same(made[0], form):
        return None
    rows = dict(zip(plain.arg_true(), made, strict=True)) | by_place
    return [rows[place] for place in range(len(df))]


def _described(store: Store1x, prediction_ids: list[str]) -> dict[str, Row]:
    """What there is of predictions that have more than arrays of numbers."""
    arrays = store.array_store
    return arrays.load_batch(arrays.described_among(prediction_ids))


def _with_more(arrays: dict[str, Row]) -> list[str]:
    """Predictions with more than the arrays of scores."""
    return [each for each, found in arrays.items() if any(_is_given(found[name]) for name in _MORE)]


def _is_given(value: Any) -> bool:
    return value is not None and len(value) > 0


def _arrays(workspace: Workspace, prediction_ids: list[str], described: dict[str, Row]) -> dict[str, list[Any]]:
    """The arrays of `_ARRAYS` by name, of one prediction after the other, indices as lists: each its own, and may be
    written to; None where there is none.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
    for start in range(0, len(prediction_ids), _BATCH):
        asked = prediction_ids[start : start + _BATCH]
        loaded = workspace.arrays.load_existing([each for each in asked if each not in described], _ARRAYS)
        given = {name: getattr(loaded, name).copies() for name in _TARGETS}
        given[_INDICES] = loaded.sample_indices.to_lists()
        places = {each: place for place, each in enumerate(loaded.prediction_ids)}
        for name, column in given.items():
            columns[name] += column if list(places) == asked else _in_order(asked, name, places, column, described)
    return columns


def _in_order(
    asked: list[str], name: str, places: dict[str, int], column: list[Any], described: dict[str, Row]
) -> list[Any]:
    """What was loaded, with what was there already, and None for what there is not."""
    found = {each: column[place] for each, place in places.items()}
    for each, row in described.items():
        found[each] = row[name].tolist() if name == _INDICES and row[name] is not None else row[name]
    return [found.get(each) for each in asked]


def _columns(workspace: Workspace, df: pl.DataFrame, arrays: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What differs from row to row, by its name in a row."""
    names = dict(workspace.database.rows(_PIPELINES))
    chains = {chain: (step, jsontext.decode(path)) for chain, step, path in workspace.database.rows(_CHAINS)}
    given = {name: df[name].to_list() for name in _READ}
    count, nothing = len(df), np.array([])
    of_chains = [chains.get(chain, (0, None)) for chain in given["chain_id"]]
    return {
        **{name: given[name] for name in _AS_STORED},
        **{
            name: [nothing if each is None else each for each in arrays.get(name, repeat(None, count))]
            for name in _TARGETS
        },
        _INDICES: [[] if each is None else each for each in arrays.get(_INDICES, repeat(None, count))],
        "step_idx": [step for step, _ in of_chains],
        "branch_path": [path for _, path in of_chains],
        "id": given["prediction_id"],
        "pipeline_uid": given["pipeline_id"],
        "config_name": [names.get(pipeline, "") for pipeline in given["pipeline_id"]],
        "model_classname": given["model_class"],
        "fold_id": given["fold_id"],
        **{name: [text or "" for text in given[name]] for name in ("chain_id", "branch_name")},
        **{name: [number or 0 for number in given[name]] for name in ("n_samples", "n_features")},
        **{name: [found or {} for found in _decoded(df[name])] for name in ("scores", "best_params")},
        "weights": [[] for _ in range(count)],
        **{name: [{} for _ in range(count)] for name in ("metadata", "result_metadata")},
        _MADE: [datetime.now().isoformat()] * count,
    }


def _decoded(texts: pl.Series) -> list[Any]:
    """Many JSON texts at once."""
    return list(jsontext.decode(f"[{','.join(texts.replace('', None).fill_null('null').to_list())}]"))


def _is_same(ours: Row, theirs: Row) -> bool:
    """Whether two rows have the same keys in the same order, and equal values but for the time."""
    return list(ours) == list(theirs) and all(
        type(ours[name]) is type(theirs[name]) and np.array_equal(ours[name], theirs[name])
        if isinstance(theirs[name], np.ndarray)
        else ours[name] == theirs[name]
        for name in theirs
        if name != _MADE
    )
