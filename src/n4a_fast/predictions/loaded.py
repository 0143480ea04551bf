"""What reading many predictions gives: numpy views on the Arrow buffers that DuckDB filled, or labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import polars as pl
import pyarrow as pa

from n4a_fast.engine.frames import as_frame
from n4a_fast.errors import InvalidInputError
from n4a_fast.tables.predictions.arrays import in_rows
from n4a_fast.tables.predictions.labels import TARGETS, classes_of, texts_of
from n4a_fast.values.notebook import arrays_cell


class _Views(Sequence[Any]):
    """One thing per prediction, by its place or a slice of places."""

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return self._one(place)

    @abstractmethod
    def _one(self, place: int) -> Any: ...


class ListViews(_Views):
    """One array per prediction, each a read-only numpy view of a shared buffer; None where there is none."""

    def __init__(self, lists: pa.ListArray, widths: pa.Array, rows: np.ndarray[Any, Any]) -> None:
        """`rows` tells for each prediction which of the lists is its own; -1 for none."""
        self._lists, self._offsets = lists, lists.offsets.to_numpy()
        self._values = lists.values.to_numpy(zero_copy_only=True)
        self._widths = None if widths.null_count == len(widths) else widths
        self._rows = (
            np.where(lists.is_null().to_numpy(zero_copy_only=False)[rows], -1, rows) if lists.null_count else rows
        )

    def __len__(self) -> int:
        return len(self._rows)

    def _one(self, place: int) -> Any:
        row = self._rows.item(place)  # plain numbers: a slice between numpy's takes three times as long
        if row < 0:
            return None
        width = None if self._widths is None else self._widths[row].as_py()
        return in_rows(self._flat(row), width)

    def told(self) -> str:
        """How long the arrays are, and how many are missing."""
        there = self._rows[self._rows >= 0]
        if not len(there):
            return "none"
        lengths = np.diff(self._offsets)[there]
        low, high = int(lengths.min()), int(lengths.max())
        missing = f", {len(self) - len(there):,} missing" if len(there) < len(self) else ""
        return f"{low:,} each{missing}" if low == high else f"{low:,} to {high:,}{missing}"

    def __iter__(self) -> Iterator[Any]:
        offsets, widths = self._offsets.tolist(), None if self._widths is None else self._widths.to_pylist()
        for row in self._rows.tolist():
            if row < 0:
                yield None
                continue
            flat, width = self._values[offsets[row] : offsets[row + 1]], widths and widths[row]
            yield in_rows(flat, width)

    def copies(self, places: Sequence[int]) -> list[Any]:
        """The arrays at these places, each its own to write to; None where there is none."""
        rows = self._rows[np.asarray(places, np.intp)]
        if self._widths is not None or (rows < 0).any():
            return [None if (view := self[place]) is None else view.copy() for place in places]
        starts, ends = self._offsets[rows].tolist(), self._offsets[rows + 1].tolist()
        return [self._values[start:end].copy() for start, end in zip(starts, ends, strict=True)]

    def to_lists(self, places: Sequence[int]) -> list[list[Any] | None]:
        """The arrays at these places as lists of numbers, each its own; None where there is none. Those of one
        dimension.
        """
        rows = self._rows[np.asarray(places, np.intp)].tolist()
        shared = {row: None if row < 0 else self._flat(row).tolist() for row in set(rows)}
        return [None if (found := shared[row]) is None else found.copy() for row in rows]

    def _flat(self, row: int) -> np.ndarray[Any, Any]:
        flat: np.ndarray[Any, Any] = self._values[self._offsets.item(row) : self._offsets.item(row + 1)]
        return flat

    def to_2d(self) -> np.ndarray[Any, Any]:
        """All arrays as rows of one read-only matrix, a view where possible; InvalidInputError when lengths differ or
        one is missing.
        """
        lengths = np.diff(self._offsets)[self._rows] if len(self) else np.zeros(0, np.int64)
        if (self._rows < 0).any() or (lengths != lengths[:1]).any():
            raise InvalidInputError("the arrays differ in length, or some are missing; take them one by one")
        width = int(lengths[0]) if len(lengths) else 0
        starts = self._offsets[self._rows]
        if (np.diff(starts) == width).all():
            start = int(starts[0]) if len(starts) else 0
            view: np.ndarray[Any, Any] = self._values[start : start + len(self) * width].reshape(len(self), width)
            return view
        matrix: np.ndarray[Any, Any]
        if (np.diff(self._offsets) == width).all():  # whole rows are copied
            begin = self._offsets[0]
            matrix = self._values[begin : begin + len(self._lists) * width].reshape(-1, width)[self._rows]
        else:
            matrix = self._values[starts[:, None] + np.arange(width)]
        matrix.flags.writeable = False
        return matrix

    def to_arrow(self) -> pa.ListArray:
        """One list per prediction, row-major."""
        if np.array_equal(self._rows, np.arange(len(self._lists))):
            return self._lists
        return self._lists.take(pa.array(self._rows, mask=self._rows < 0))


class LabelViews(_Views):
    """One array per prediction: labels as text (object arrays, None for a missing one) where they have classes."""

    def __init__(self, views: ListViews, classes: Sequence[str | None]) -> None:
        self._views, self._classes = views, classes

    def __len__(self) -> int:
        return len(self._views)

    def _one(self, place: int) -> Any:
        return texts_of(self._views[place], self._classes[place])

    def to_2d(self) -> np.ndarray[Any, Any]:
        """All arrays as rows of one matrix; InvalidInputError when lengths differ or one is missing."""
        matrix, kinds = self._views.to_2d(), set(self._classes)
        if len(kinds) == 1:
            return np.asarray(texts_of(matrix, kinds.pop()))
        rows = [texts_of(row, stored) for row, stored in zip(matrix, self._classes, strict=True)]
        return np.array(rows, dtype=object).reshape(matrix.shape)

    def to_arrow(self) -> pa.ListArray:
        """One list of texts per prediction, row-major; null for targets that are numbers."""
        texts = (None if stored is None else view for view, stored in zip(self, self._classes, strict=True))
        return pa.array([None if one is None else one.ravel() for one in texts], pa.list_(pa.string()))


class LoadedArrays:
    """Arrays of many predictions, in the order they were asked for."""

    def __init__(
        self,
        prediction_ids: pa.ChunkedArray,
        views: Mapping[str, ListViews],
        classes: Sequence[str | None] | None = None,
    ) -> None:
        """`classes` (JSON text) of each prediction's targets, if these are to be given as labels."""
        self._ids, self._views, self._classes = prediction_ids, views, classes
        self.columns = tuple(views)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def prediction_ids(self) -> list[str]:
        """Ids, one per row."""
        return list(self._ids.to_pylist())

    @property
    def y_true(self) -> ListViews | LabelViews:
        """Measured values: (n_samples,) or (n_samples, n_targets) each; with `labels` text where they are classes."""
        return self._target("y_true")

    @property
    def y_pred(self) -> ListViews | LabelViews:
        """Predicted values: (n_samples,) or (n_samples, n_targets) each; with `labels` text where they are classes."""
        return self._target("y_pred")

    @property
    def y_proba(self) -> ListViews:
        """Class probabilities: (n_samples, n_classes) each."""
        return self._view("y_proba")

    @property
    def sample_indices(self) -> ListViews:
        """Sample indices, int64: (n_samples,) each."""
        return self._view("sample_indices")

    @property
    def weights(self) -> ListViews:
        """Weights, 1-D each."""
        return self._view("weights")

    @property
    def classes(self) -> list[list[str] | None]:
        """The classes of each prediction's targets in the order of their numbers, None for numbers; with `labels`."""
        if self._classes is None:
            raise AttributeError("classes were not loaded; ask for labels=True")
        return [None if each is None else classes_of(each)[:-1].tolist() for each in self._classes]

    def y_true_2d(self) -> np.ndarray[Any, Any]:
        """Measured values as one matrix (n_predictions, n_samples), when lengths agree."""
        return self.y_true.to_2d()

    def y_pred_2d(self) -> np.ndarray[Any, Any]:
        """Predicted values as one matrix (n_predictions, n_samples), when lengths agree."""
        return self.y_pred.to_2d()

    def to_arrow(self) -> pa.Table:
        """`prediction_id` and a list column per array, row-major; with `labels` also `y_true_labels`,
        `y_pred_labels`.
        """
        return pa.table({"prediction_id": self._ids, **self.arrow_columns()})

    def arrow_columns(self) -> dict[str, pa.ListArray]:
        """The list columns of `to_arrow` by name."""
        columns = {name: views.to_arrow() for name, views in self._views.items()}
        targets = [name for name in TARGETS if name in columns and self._classes is not None]
        return columns | {f"{name}_labels": self._target(name).to_arrow() for name in targets}

    def to_polars(self) -> pl.DataFrame:
        """The same as a Polars frame."""
        return as_frame(self.to_arrow())

    def __repr__(self) -> str:
        columns = [f"{name} {views.told()}" for name, views in self._views.items()]
        return f"LoadedArrays: {len(self):,} predictions; {', '.join(columns) or 'no arrays'}"

    def _repr_html_(self) -> str | None:
        return arrays_cell(self)

    def _target(self, name: str) -> ListViews | LabelViews:
        views = self._view(name)
        return views if self._classes is None else LabelViews(views, self._classes)

    def _view(self, name: str) -> ListViews:
        if name not in self._views:
            raise AttributeError(f"{name} was not loaded; name it in columns= (loaded: {', '.join(self.columns)})")
        return self._views[name]
