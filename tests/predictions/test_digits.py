"""Which numbers are said to have all their digits, and how DuckDB packs them then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import PREDICTION, Sweep, begin_sweep

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import Database
from n4a_fast.tables.predictions.digits import are_long

ROWS, SAMPLES = 4096, 20
NUMBERS = np.random.default_rng(0).random((ROWS, SAMPLES))
FORMS: dict[str, tuple[Callable[[], np.ndarray[Any, Any]], bool]] = {
    "of a model": (lambda: NUMBERS, True),
    "large": (lambda: (NUMBERS - 0.5) * 1e6, True),
    "of single precision": (lambda: NUMBERS.astype(np.float32).astype(float), True),
    "with a missing one": (lambda: np.where(np.arange(SAMPLES) == 3, np.nan, NUMBERS)[: ROWS // 2], True),
    "classes": (lambda: np.floor(3 * NUMBERS), False),
    "decimals": (lambda: NUMBERS.round(9), False),
    "one for all": (lambda: np.full((ROWS, SAMPLES), NUMBERS[0, 0]), False),
    "missing": (lambda: np.full((ROWS, SAMPLES), np.nan), False),
    "infinite": (lambda: np.full((ROWS, SAMPLES), np.inf), False),
    "half of them classes": (lambda: np.where(np.arange(ROWS)[:, None] % 2, NUMBERS, 1.0), False),
    "few": (lambda: NUMBERS[:1, :3], False),
    "none": (lambda: NUMBERS[:0], False),
}

PACKED = """SELECT DISTINCT compression FROM pragma_storage_info('prediction_values')
WHERE column_name = 'y_pred' AND segment_type = 'DOUBLE'"""


def table(y_pred: Any, y_proba: Any = None) -> pa.Table:
    lists = pa.list_(pa.float64())
    columns = {"y_pred": y_pred, "y_proba": [None] * len(y_pred) if y_proba is None else y_proba}
    return pa.table({name: pa.array(list(rows), lists) for name, rows in columns.items()})


@pytest.mark.parametrize("form", FORMS)
def test_numbers_that_have_all_their_digits(form: str) -> None:
    made, expected = FORMS[form]
    assert are_long(table(made())) is expected


def test_all_lists_are_looked_at() -> None:
    classes = np.floor(3 * NUMBERS)
    assert are_long(table(NUMBERS, NUMBERS))
    assert not are_long(table(NUMBERS, classes))
    assert not are_long(table([None] * ROWS))
    assert are_long(table([None, *NUMBERS[1:]]))


@pytest.mark.parametrize("chunks", [1, 2, 7])
def test_parts_and_chunks_are_looked_at_by_their_own_values(chunks: int) -> None:
    halves = table([*NUMBERS[: ROWS // 2], *np.zeros((ROWS // 2, SAMPLES))])
    parts = pa.concat_tables([halves.slice(start, ROWS // 2 // chunks) for start in range(0, ROWS // 2, 64)][:chunks])
    assert are_long(parts)
    assert not are_long(halves.slice(ROWS // 2))
    assert not are_long(pa.concat_tables([parts, halves.slice(ROWS // 2)]))


@pytest.mark.parametrize(
    ("form", "packed"), [("of a model", "ALPRD"), ("decimals", "ALP"), ("one for all", "Constant")]
)
def test_each_is_packed_as_it_takes_least_room(tmp_path: Path, form: str, packed: str) -> None:
    matrix = FORMS[form][0]()
    with WorkspaceStore(tmp_path) as store:
        given = {**PREDICTION, "pipeline_id": begin_sweep(store).pipeline, "fold_id": [str(row) for row in range(ROWS)]}
        ids = store.save_predictions(given, y_pred=matrix)
        np.testing.assert_array_equal(store.load_arrays(ids, columns=["y_pred"]).y_pred_2d(), matrix)
    with duckdb.connect(tmp_path / "store.duckdb", read_only=True) as connection:
        assert connection.execute(PACKED).fetchall() == [(packed,)]


@pytest.mark.parametrize("form", ["of a model", "classes"])
def test_duckdb_tries_its_ways_where_it_is_not_known(
    store: WorkspaceStore, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    told: list[bool] = []
    insert = Database.insert

    def noted(self: Database, sql: str, **options: Any) -> int:
        told.extend([options.get("mantissas", False)] * ("prediction_values" in sql))
        return insert(self, sql, **options)

    monkeypatch.setattr(Database, "insert", noted)
    given = {**PREDICTION, "pipeline_id": sweep.pipeline, "fold_id": [str(row) for row in range(ROWS)]}
    store.save_predictions(given, y_pred=FORMS[form][0]())
    assert told == [form == "of a model"]
    assert store.sql("SELECT current_setting('force_compression') AS way")["way"].to_list() == ["auto"]
