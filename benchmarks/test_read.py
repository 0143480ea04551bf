"""Gate: reading. Seed 0, one caller thread, DuckDB's default threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from conftest import Sweep, interleaved

from n4a_fast import WorkspaceStore

Gate = Callable[[str, Callable[[], float]], None]


def test_load_arrays_vs_one_by_one(gate: Gate, store: WorkspaceStore) -> None:
    sweep = Sweep(store)
    ids = [prediction for _ in range(60) for prediction in sweep.pipeline()][:1000]

    def one_by_one() -> list[object]:
        return [store.get_prediction(prediction, load_arrays=True) for prediction in ids]

    gate("load_arrays_vs_one_by_one", lambda: interleaved(one_by_one, lambda: store.load_arrays(ids), 3))
    loaded = store.load_arrays(ids)
    assert loaded.prediction_ids == ids
    assert np.array_equal(loaded.y_pred_2d(), np.tile(sweep.y_pred, (1000, 1)))
