"""`Predictions` of nirs4all 1.x filled from a store of ours, many rows at a time.

nirs4all fills it row by row and asks for every pipeline and chain. Here its own code makes those rows that have more
than scores and arrays, and the first of the plain ones; that one shows the form of a row in the release that is
installed, in which the other plain ones are made, their arrays and scores when they are looked at (`late_rows`). If
what we make of the first differs from what nirs4all made in anything but its time, nirs4all's own code makes them all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from itertools import zip_longest
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from n4a_fast.engine.workspace import Workspace
from n4a_fast.integrations.nirs4all.array_facade import ARRAYS, plain_rows
from n4a_fast.integrations.nirs4all.late_rows import Maker, Makers, late_rows
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
from n4a_fast.predictions.loaded import LoadedArrays
from n4a_fast.values import jsontext
from n4a_fast.values.uncollected import uncollected

Row = dict[str, Any]
Fill = Callable[..., None]
Columns = dict[tuple[str, ...], pl.Series]  # each by the keys under which it is in a row
Chains = dict[str, tuple[int, str | None]]  # step of the model and path of the branch, by chain

MODULE = "nirs4all.data.predictions"
_FILLS = "_populate_buffer_from_store"
_ASKS = "_restore_workspace_context"
_MADE = "created_at"  # when the row in memory was made
_OF_REFITS = ("final", "final_agg")  # whose scores nirs4all takes from each other
_TARGETS = ("y_true", "y_pred", "y_proba")
_INDICES = "sample_indices"
_BATCH = 16_384  # predictions that are let go together
_EMPTY: dict[str, Callable[[], Any]] = {"weights": list, "metadata": dict, "result_metadata": dict}  # in plain rows
_MORE = ("X", "spectra", "sample_metadata", "result_metadata")
_AS_STORED = (
    *("dataset_name", "model_name", "partition", "val_score", "test_score", "train_score", "metric", "task_type"),
    *("preprocessings", "branch_id", "refit_context", "fold_id"),
)
_IDS = ("id", "prediction_id")
_JSON = ("scores", "best_params")
_WORTH_IT = 16  # rows
_CHAINS = "SELECT chain_id, model_step_idx, branch_path FROM chains"
_PIPELINES = "SELECT pipeline_id, name FROM pipelines"
_RUNS = "SELECT pipeline_id, run_id FROM pipelines"


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
            of_runs = pl.DataFrame([run, df["dataset_name"]]).with_row_index()
            first = df[of_runs.unique(["pipeline_id", "dataset_name"], keep="first", maintain_order=True)["index"]]
            store._of_runs.read_ahead(workspace, first["pipeline_id"].unique().to_list(), chains=False)
            original(self, _AtHand(store, runs=workspace.runs.find_many(run.drop_nulls().unique().to_list())), first)

    return ask


def _filling(original: Fill) -> Fill:
    @wraps(original)
    def fill(self: Any, store: Any, df: pl.DataFrame, *, load_arrays: bool = True) -> None:
        made = None
        if isinstance(store, Store1x):
            with uncollected():
                made = _made(original, type(self), store, df, load_arrays)
                _let_count_as_old()
        if made is None:
            original(self, store, df, load_arrays=load_arrays)
        else:
            self._buffer.extend(made)

    return fill


def _let_count_as_old() -> None:
    """Or the next object would make the collector look at all that was made, twice."""
    if not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


def _made(original: Fill, kind: type, store: Store1x, df: pl.DataFrame, load_arrays: bool) -> list[Row] | None:
    """The rows of the frame; None where nirs4all has to make them all."""
    with store.read_together() as workspace:
        described = _described(store, df["prediction_id"].to_list()) if load_arrays else {}
        plain = ~(df["fold_id"].is_in(_OF_REFITS) | df["prediction_id"].is_in(_with_more(described)))
        if plain.sum() < _WORTH_IT:
            return None
        theirs = df.filter(~plain | (pl.int_range(len(df), eager=True) == plain.arg_max()))
        batches = [*df.filter(plain).iter_slices(_BATCH)]
        arrays = [_loaded(workspace, batch, described) for batch in batches] if load_arrays else []
        shown = kind()
        store._of_runs.read_ahead(workspace, theirs["pipeline_id"].unique().to_list(), chains=True)
        at_hand = _AtHand(store, arrays=described | _first_of(arrays))
        original(shown, at_hand, theirs, load_arrays=load_arrays)
        form = shown._buffer[int((~plain)[: plain.arg_max()].sum())]
        made = _like(form, workspace, batches, arrays, described)
    if not _is_same(dict(made[0]), form):
        return None
    made[0] = form
    if len(made) == len(df):
        return made
    of_plain, others = iter(made), iter([row for row in shown._buffer if row is not form])
    return [next(of_plain if is_plain else others) for is_plain in plain.to_list()]


class _AtHand:
    """A store to nirs4all's own code, of which some answers are known: arrays of predictions, and runs."""

    def __init__(self, store: Store1x, *, arrays: dict[str, Row] | None = None, runs: dict[str, Row] | None = None):
        self._store, self._arrays, self._runs = store, arrays or {}, runs or {}
        self.array_store = self

    def load_batch(self, prediction_ids: Sequence[str], dataset_name: str | None = None) -> dict[str, Row]:
        """As the store gives it; each is asked for once."""
        found = {each: self._arrays[each] for each in prediction_ids if each in self._arrays}
        left = [each for each in prediction_ids if each not in found]
        return found | (self._store.array_store.load_batch(left, dataset_name) if left else {})

    def get_run(self, run_id: str) -> Row | None:
        """As the store gives it."""
        return self._runs[run_id] if run_id in self._runs else self._store.get_run(run_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _first_of(arrays: list[LoadedArrays]) -> dict[str, Row]:
    """The arrays of the first prediction, as `load_batch` gives them; of one without any nirs4all asks itself."""
    return dict(zip(arrays[0].prediction_ids[:1], plain_rows(arrays[0], slice(1)), strict=True)) if arrays else {}


def _like(
    form: Row,
    workspace: Workspace,
    batches: list[pl.DataFrame],
    arrays: list[LoadedArrays],
    described: dict[str, Row],
) -> list[Row]:
    """Rows in the form of one of them; without arrays if none were loaded."""
    names = dict(workspace.database.rows(_PIPELINES))
    chains = {chain: (step, path) for chain, step, path in workspace.database.rows(_CHAINS)}
    made: list[Row] = []
    for batch, loaded in zip_longest(batches, arrays):
        of_arrays = {} if loaded is None else _arrays(loaded, batch["prediction_id"].to_list(), described)
        empty = {**dict.fromkeys(_TARGETS, _nothing), _INDICES: list, **_EMPTY}
        makers = {name: _empty_maker(make) for name, make in empty.items()} | of_arrays
        makers |= {name: _decoder(batch[name]) for name in _JSON}
        made += _filled(form, _columns(batch, names, chains), {**makers, "branch_path": _path_maker(batch, chains)})
    return made


def _filled(form: Row, columns: Columns, makers: Makers) -> list[Row]:
    """A row for each place of the columns; what all have is filled in once."""
    shared = {names: column[0] for names, column in columns.items() if column.eq_missing(column[0]).all()}
    filled = form | {name: value for names, value in shared.items() for name in names}
    lists = {names: columns[names].to_list() for names in columns.keys() - shared.keys()}
    of_rows = {name: values for names, values in lists.items() for name in names}
    return [*late_rows(filled, makers, of_rows, len(columns[_IDS]))]


def _described(store: Store1x, prediction_ids: list[str]) -> dict[str, Row]:
    """What there is of predictions that have more than arrays of numbers."""
    arrays = store.array_store
    return arrays.load_batch(arrays.described_among(prediction_ids))


def _with_more(arrays: dict[str, Row]) -> list[str]:
    """Predictions with more than the arrays of scores."""
    return [each for each, found in arrays.items() if any(_is_given(found[name]) for name in _MORE)]


def _is_given(value: Any) -> bool:
    return value is not None and len(value) > 0


def _loaded(workspace: Workspace, batch: pl.DataFrame, described: dict[str, Row]) -> LoadedArrays:
    """The arrays of predictions that have nothing else."""
    return workspace.arrays.load_existing([each for each in batch["prediction_id"] if each not in described], ARRAYS)


def _arrays(loaded: LoadedArrays, prediction_ids: list[str], described: dict[str, Row]) -> dict[str, Maker]:
    """By name of an array, what makes those of the predictions at some places, each its own to write to."""
    rows = {each: row for row, each in enumerate(loaded.prediction_ids)}
    places = [rows.get(each) for each in prediction_ids]
    beside = {each: described[each] | _listed_indices(described[each]) for each in prediction_ids if each in described}

    def maker(name: str, read: Callable[[list[int]], list[Any]], otherwise: Callable[[], Any]) -> Maker:
        def make(wanted: Sequence[int]) -> list[Any]:
            read_from = [row for place in wanted if (row := places[place]) is not None]
            found = read(read_from)
            if len(found) < len(wanted):
                ids, others = [prediction_ids[place] for place in wanted], iter(found)
                found = [next(others) if each in rows else beside.get(each, {}).get(name) for each in ids]
            return [otherwise() if each is None else each for each in found]

        return make

    indices = getattr(loaded, _INDICES)
    makers = {name: maker(name, getattr(loaded, name).copies, _nothing) for name in _TARGETS}
    return makers | {_INDICES: maker(_INDICES, indices.to_lists, list)}


def _listed_indices(row: Row) -> Row:
    return {} if row[_INDICES] is None else {_INDICES: row[_INDICES].tolist()}


def _nothing() -> np.ndarray[Any, Any]:
    return np.empty(0)


def _empty_maker(make: Callable[[], Any]) -> Maker:
    return lambda places: [make() for _ in places]


def _decoder(column: pl.Series) -> Maker:
    # in a forked child, Polars may wait for threads that are not there. Views are not copied
    texts = column.to_arrow(compat_level=pl.CompatLevel.newest())
    return lambda places: [jsontext.decode(texts[place].as_py() or None) or {} for place in places]


def _path_maker(df: pl.DataFrame, chains: Chains) -> Maker:
    paths = [chains[chain][1] if chain in chains else None for chain in df["chain_id"].to_list()]
    return lambda places: [jsontext.decode(paths[place]) for place in places]


def _columns(df: pl.DataFrame, names: Row, chains: Chains) -> Columns:
    """What differs from row to row; `names` of pipelines, of chains their step."""
    of_pipelines, of_chains = df["pipeline_id"], df["chain_id"]
    steps = {chain: step for chain, (step, _) in chains.items()}
    return {
        **{(name,): df[name] for name in _AS_STORED},
        ("step_idx",): of_chains.replace_strict(steps, default=0, return_dtype=pl.Int64),
        _IDS: df["prediction_id"],
        ("pipeline_uid", "pipeline_id"): of_pipelines,
        ("config_name",): of_pipelines.replace_strict(names, default="", return_dtype=pl.String),
        ("model_classname",): df["model_class"],
        **{(name,): df[name].fill_null("") for name in ("chain_id", "branch_name")},
        **{(name,): df[name].fill_null(0) for name in ("n_samples", "n_features")},
        (_MADE,): pl.Series([datetime.now().isoformat()]).new_from_index(0, len(df)),
    }


def _is_same(ours: Row, theirs: Row) -> bool:
    """Whether two rows have the same keys in the same order, and equal values but for the time."""
    return list(ours) == list(theirs) and all(
        type(ours[name]) is type(theirs[name]) and np.array_equal(ours[name], theirs[name])
        if isinstance(theirs[name], np.ndarray)
        else ours[name] == theirs[name]
        for name in theirs
        if name != _MADE
    )
