"""Run under callgrind: instructions of single calls, each section dumped under its name.

Takes the marks library and a folder; prints the number of calls of each section as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import names_alone
import numpy as np
from reference import append_plainly
from sklearn.ensemble import GradientBoostingRegressor
from slower import slow_down
from workloads import SAMPLES, SCORES

from n4a_fast import WorkspaceStore
from n4a_fast._native import kernels
from n4a_fast._native.columns import ListColumn, live_blocks
from n4a_fast.artifacts import codec
from n4a_fast.artifacts.trust import trust

CALLS = 300
VALUES = 10_000
LOADS = 20


def main(marks: ctypes.CDLL, folder: Path) -> dict[str, int]:
    slow_down()
    calls: dict[str, int] = {}

    def counted(name: str, call: Callable[[int], object], units: int = 1, times: int = CALLS) -> None:
        for number in range(20):  # caches of the interpreter, and room in the buffers
            call(-1 - number)
        marks.n4a_start()
        for number in range(times):
            call(number)
        marks.n4a_stop(name.encode())
        calls[name] = times * units

    _loading(counted)
    _saving(counted, folder)
    _columns(counted)
    _kernels(counted)
    return calls


def _loading(counted: Callable[..., None]) -> None:
    """A model of 100 small boosted trees from somebody else, as pickle and as joblib write it: guarded, and asked for
    names alone. No garbage is collected meanwhile: that comes when it likes, and takes a tenth of a load.
    """
    numbers = np.random.default_rng(0)
    X, y = numbers.random((200, 20)), numbers.random(200)
    model, written = GradientBoostingRegressor(n_estimators=100, random_state=0).fit(X, y), io.BytesIO()
    joblib.dump(model, written)
    gc.disable()
    for kind, data in (("plain", codec.dumps(model, "joblib")), ("joblib", written.getvalue())):
        for who, load in (("names", names_alone.loads), ("guarded", _guarded)):
            counted(f"load_{kind}_{who}", lambda _number, load=load, data=data: load(data), times=LOADS)
    gc.enable()
    assert np.array_equal(_guarded(data).predict(X), model.predict(X))


def _guarded(data: bytes) -> Any:
    return trust("workspace").loads("a", data, "joblib", "imported")


def _saving(counted: Callable[..., None], folder: Path) -> None:
    """The two drop-in calls beside the plain append, into buffers that do not fill up."""
    rows: list[tuple[object, ...]] = []
    y_true, y_pred, indices = np.arange(float(SAMPLES)), np.random.default_rng(0).random(SAMPLES), np.arange(SAMPLES)
    with WorkspaceStore(folder, flush_interval=None) as store:
        pipeline = store.begin_pipeline(store.begin_run("sweep", {}, []), "p", {}, [], "corn", "h")
        ids: list[str] = []

        def save(number: int) -> None:
            given = ("corn", "PLS", "PLS", str(number), "val", 0.1, 0.2, 0.05, "rmse", "regression", SAMPLES, 700)
            ids.append(store.save_prediction(pipeline, None, *given, SCORES, {}, None, None, 0, 0.0))

        counted(
            "append_plainly",
            lambda number: append_plainly(rows, ["corn", "PLS", number, 0.1, 0.2, 0.05, "rmse"], SCORES, y_pred),
        )
        counted("save_prediction", save)
        counted(
            "save_prediction_arrays",
            lambda number: store.save_prediction_arrays(ids[number], y_true, y_pred, None, indices),
        )
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 1)
        assert len(store.query_predictions()) == len(rows) == CALLS + 20


def _columns(counted: Callable[..., None]) -> None:
    """The native column: instructions per value appended, by dtype; the column is emptied now and then."""
    for dtype in ("float64", "float32", "int32"):
        column, values = ListColumn("y", "float64"), np.arange(VALUES).astype(dtype)

        def append(
            _number: int, column: ListColumn = column, values: np.ndarray[tuple[int], np.dtype[np.generic]] = values
        ) -> None:
            column.append(values)
            if len(column) == 50:
                column.finish()

        counted(f"append_{dtype}", append, VALUES)
        column.finish()
    assert live_blocks() == 0


def _kernels(counted: Callable[..., None]) -> None:
    """The replay kernels: instructions per value of X with one output column, at AVX2, which valgrind knows too."""
    numbers = np.random.default_rng(0)
    X, W, b = numbers.random((20, 700)), numbers.random((700, 1)), np.zeros(1)
    level = min(
        kernels.instruction_sets().index("avx2") if "avx2" in kernels.instruction_sets() else 0,
        len(kernels.instruction_sets()) - 1,
    )
    for name, kernel in (("affine", kernels.affine), ("snv_affine", kernels.snv_affine)):
        counted(name, lambda _number, kernel=kernel: kernel(X, W, b, level=level), X.size)


if __name__ == "__main__":
    print(json.dumps(main(ctypes.CDLL(sys.argv[1]), Path(sys.argv[2]) / "workspace")))
