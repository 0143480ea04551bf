"""The fields of one prediction, as `save_prediction` takes them: checked and made a row, all in one compiled call.

What a field needs for its column is told by a function each; the compiled call spares those that need nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from n4a_fast._native.arguments import RowMaker
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values import checks, ids, jsontext

Converter = Callable[[Any, str], Any]


def _fold(value: Any, name: str) -> str:
    """A fold's id, which may be given as its number."""
    return checks.text(str(value), name)


def _json(value: Any, name: str) -> str | None:
    if type(value) is dict:
        return jsontext.encode(value, name) if value else "{}"
    return jsontext.encode(checks.optional_mapping(value, name), name)


_TEXT, _MAYBE, _REAL = ("t", checks.text), ("T", checks.optional_text), ("r", checks.real)
_INTEGER, _FOLD, _JSON = ("i", checks.optional_integer), ("t", _fold), ("j", _json)
FIELDS: dict[str, tuple[str, Converter]] = {  # in the order of the schema
    "pipeline_id": _TEXT,
    "chain_id": _MAYBE,
    "dataset_name": _TEXT,
    "model_name": _TEXT,
    "model_class": _TEXT,
    "fold_id": _FOLD,
    "partition": _TEXT,
    "val_score": _REAL,
    "test_score": _REAL,
    "train_score": _REAL,
    "metric": _MAYBE,
    "task_type": _MAYBE,
    "n_samples": _INTEGER,
    "n_features": _INTEGER,
    "scores": _JSON,
    "best_params": _JSON,
    "preprocessings": _MAYBE,
    "branch_id": _INTEGER,
    "branch_name": _MAYBE,
    "exclusion_count": _INTEGER,
    "exclusion_rate": _REAL,
    "refit_context": _MAYBE,
}
_NAMES = tuple(FIELDS)
# the natural key of a prediction and its row in the order of the schema; InvalidInputError names what does not fit
row_of = RowMaker(
    "".join(kind for kind, _ in FIELDS.values()).encode(),
    tuple(converter for _, converter in FIELDS.values()),
    _NAMES,
    jsontext.dumps,
    tuple(map(_NAMES.index, KEY)),
    ids.derived,
).row
