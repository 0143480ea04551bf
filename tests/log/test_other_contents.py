"""Records that are whole and say what no store logs: told by a typed error, and nothing of them is in the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import msgpack

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NewerFormatError, StoreFormatError
from n4a_fast.log import record
from n4a_fast.schema.versions import FORMAT_VERSION

SESSION = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def one_record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a record with a run, two predictions and their arrays."""
    with WorkspaceStore(tmp_path_factory.mktemp("source")) as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        chain = store.save_chain(pipeline, [{"step_idx": 1}], 1, "M", "", "per_fold", {}, {})
        told = (0.1, 0.2, 0.3, "rmse", "regression", 3, 6, {}, {}, None, None, 0, 0.0)
        for fold in ("0", "1"):
            saved = store.save_prediction(pipeline, chain, "d", "M", "M", fold, "val", *told)
            store.save_prediction_arrays(saved, np.arange(3.0), np.arange(3.0))
        return store._open().tables.fresh()


@pytest.fixture
def logged(one_record: bytes) -> dict[str, Any]:
    """The same to be changed."""
    return dict(msgpack.decode(one_record))


def put_beside(store: WorkspaceStore, content: bytes, schema: int = FORMAT_VERSION) -> Path:
    """A segment of a process that has ended, with one whole record."""
    database = store._open().database
    path = database.path.with_name(f"{database.path.name}.log-{SESSION}")
    path.write_bytes(record.encoded(1, content, schema, database.identity.store_id))
    return path


def rows(number: object) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        content["predictions"][0] = number

    return spoil


def lengths(*found: int) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        content["prediction_values"]["y_pred"][0] = np.array(found, np.int64).tobytes()

    return spoil


def column(table: str, name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def spoil(content: dict[str, Any]) -> None:
        found = content[table]
        (found[1] if table == "predictions" else found[0])[name] = value

    return spoil


SPOILT = {
    "more rows than columns have": rows(2**40),
    "a negative number of rows": rows(-1),
    "a text of rows": rows("2"),
    "arrays longer than their values": lengths(3, 2**40),
    "arrays behind their values": lengths(3, 300),
    "lengths that overflow": lengths(2**62, 2**62),
    "fewer arrays than predictions": lengths(6),
    "a column of another length": column("predictions", "prediction_id", ["a"]),
    "a time that is none": column("runs", "created_at", "yesterday"),
    "a number in place of a text": column("runs", "name", 7),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_no_store_logs_is_told_and_changes_nothing(
    store: WorkspaceStore, logged: dict[str, Any], what: str
) -> None:
    SPOILT[what](logged)
    path = put_beside(store, msgpack.encode(logged))
    for _ in range(2):
        with pytest.raises(StoreFormatError, match=SESSION):
            store.list_runs()
    path.unlink()
    assert store.list_runs().height == 0


@pytest.mark.parametrize(
    "content", [b"\xc1", b"\x93", msgpack.encode([1]), msgpack.encode({"runs": 5}), b"\x91" * 5000]
)
def test_what_is_no_content_is_told(store: WorkspaceStore, content: bytes) -> None:
    put_beside(store, content)
    with pytest.raises(StoreFormatError, match=SESSION):
        store.list_runs()


def test_what_a_store_logs_comes_into_the_tables(store: WorkspaceStore, logged: dict[str, Any]) -> None:
    path = put_beside(store, msgpack.encode(logged))
    assert store.list_runs().height == 1
    assert store.query_predictions().height == 2
    assert not path.exists()


def test_columns_are_found_by_name_and_those_of_an_older_format_may_be_fewer(
    store: WorkspaceStore, logged: dict[str, Any]
) -> None:
    count, columns = logged["predictions"]
    without = {name: columns[name] for name in reversed(columns) if name not in ("branch_name", "n_features")}
    logged["predictions"] = [count, without]
    logged["runs"] = [{name: run[name] for name in reversed(run) if name != "summary"} for run in logged["runs"]]
    put_beside(store, msgpack.encode(logged), schema=1)
    (run,) = store.list_runs().to_dicts()
    assert (run["name"], run["summary"]) == ("r", None)
    for saved in store.query_predictions().to_dicts():
        assert (saved["val_score"], saved["test_score"], saved["train_score"]) == (0.1, 0.2, 0.3)
        assert (saved["n_samples"], saved["n_features"], saved["branch_name"]) == (3, None, None)


def test_a_record_of_a_newer_format_is_told_and_left(store: WorkspaceStore, logged: dict[str, Any]) -> None:
    path = put_beside(store, msgpack.encode({**logged, "unheard of": []}), schema=FORMAT_VERSION + 1)
    with pytest.raises(
        NewerFormatError, match=f"log-{SESSION} has store format {FORMAT_VERSION + 1}.*a newer n4a_fast"
    ):
        store.list_runs()
    assert path.exists()
