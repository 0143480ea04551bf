"""`Predictions` of nirs4all 1.x filled from a store of ours, many rows at a time.

nirs4all fills it row by row and asks for every pipeline and chain. Here its own code makes those rows that have more
than scores and arrays, and the first of the plain ones; that one shows the form of a row in the release that is
installed, in which the other plain ones are made. If what we make of it differs from what nirs4all made in
anything but its time, nirs4all's own code makes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

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
    """nirs4all's method, which asks for one pipeline after the other: all as they are at one moment."""

    @wraps(original)
    def ask(self: Any, store: Any, df: pl.DataFrame) -> None:
        with store.read_together() if isinstance(store, Store1x) else nullcontext():
            original(self, store, df)

    return ask


def _filling(original: Fill) -> Fill:
    @wraps(original)
    def fill(self: Any, store: Any, df: pl.DataFrame, *, load_arrays: bool = True) -> None:
        made = _made(original, type(self), store, df, load_arrays) if isinstance(store, Store1x) else None
        if made is None:
            original(self, store, df, load_arrays=load_arrays)
        else:
            self._buffer.extend(made)

    return fill


def _made(original: Fill, kind: type, store: Store1x, df: pl.DataFrame, load_arrays: bool) -> list[Row] | None:
    """The rows of the frame; None where nirs4all has to make them all."""
    with store.read_together():
        arrays = store.array_store.load_batch(df["prediction_id"].to_list()) if load_arrays else {}
        plain = ~(df["fold_id"].is_in(_OF_REFITS) | df["prediction_id"].is_in(_with_more(arrays)))
        if plain.sum() < _WORTH_IT:
            return None
        theirs = ~plain | (pl.int_range(len(df), eager=True) == plain.arg_max())
        shown = kind()
        original(shown, store, df.filter(theirs), load_arrays=load_arrays)
        by_place = dict(zip(theirs.arg_true(), shown._buffer, strict=True))
        form = by_place[plain.arg_max()]
        ours = dict(zip(plain.arg_true(), _rows(store, df.filter(plain), form, arrays), strict=True))
    if not _is_same(ours[plain.arg_max()], form):
        return None
    rows = ours | by_place
    return [rows[place] for place in range(len(df))]


def _with_more(arrays: dict[str, Row]) -> list[str]:
    """Predictions with more than the arrays of scores."""
    return [each for each, found in arrays.items() if any(_is_given(found[name]) for name in _MORE)]


def _is_given(value: Any) -> bool:
    return value is not None and len(value) > 0


def _rows(store: Store1x, df: pl.DataFrame, form: Row, arrays: dict[str, Row]) -> Iterator[Row]:
    with store.read_together() as workspace:
        names = dict(workspace.database.rows(_PIPELINES))
        chains = {
            chain: {"step_idx": step, "branch_path": jsontext.decode(path)}
            for chain, step, path in workspace.database.rows(_CHAINS)
        }
    made, nothing, no_chain = datetime.now().isoformat(), np.array([]), {"step_idx": 0, "branch_path": None}
    without: Row = dict.fromkeys(("y_true", "y_pred", "y_proba", "sample_indices"))
    columns = {name: df[name].to_list() for name in _READ}
    decoded = (_decoded(columns[name]) for name in ("scores", "best_params"))
    kept = zip(*(columns[name] for name in _AS_STORED), strict=True)
    other = zip(*(columns[name] for name in _OTHERS), *decoded, strict=True)
    for stored, (chain, model, fold, samples, features, branch, scores, params) in zip(kept, other, strict=True):
        row = {**form, **dict(zip(_AS_STORED, stored, strict=True)), **chains.get(chain, no_chain)}
        found = arrays.get(row["prediction_id"], without)
        row.update({name: nothing if found[name] is None else found[name] for name in _TARGETS})
        indices = found["sample_indices"]
        row["id"], row["pipeline_uid"], row["chain_id"] = row["prediction_id"], row["pipeline_id"], chain or ""
        row["config_name"] = names.get(row["pipeline_id"], "")
        row["model_classname"], row["fold_id"], row["branch_name"] = model, fold, branch or ""
        row["n_samples"], row["n_features"] = samples or 0, features or 0
        row["sample_indices"] = [] if indices is None else indices.tolist()
        row["scores"], row["best_params"] = scores or {}, params or {}
        row["weights"], row["metadata"], row["result_metadata"], row[_MADE] = [], {}, {}, made
        yield row


def _decoded(texts: list[str | None]) -> list[Any]:
    """Many JSON texts at once."""
    return list(jsontext.decode(f"[{','.join(text or 'null' for text in texts)}]"))


def _is_same(ours: Row, theirs: Row) -> bool:
    """Whether two rows have the same keys in the same order, and equal values but for the time."""
    return list(ours) == list(theirs) and all(
        type(ours[name]) is type(theirs[name]) and np.array_equal(ours[name], theirs[name])
        if isinstance(theirs[name], np.ndarray)
        else ours[name] == theirs[name]
        for name in theirs
        if name != _MADE
    )
