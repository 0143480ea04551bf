"""Gate: reading. Seed 0, one caller thread, DuckDB's default threads."""

from __future__ import annotations

import numpy as np
from harness import Measure, gate
from workloads import Sweep

from n4a_fast import WorkspaceStore


@gate(
    "load_arrays_vs_one_by_one",
    workload="load_arrays of 1,000 predictions, n=200",
    baseline="get_prediction(load_arrays=True) of each, by turns in two row groups: none is read ahead",
    size=4_200,
    seed=0,
    threads=1,
)
def test_load_arrays_vs_one_by_one(measure: Measure, store: WorkspaceStore) -> None:
    sweep = Sweep(store)
    saved = [prediction for _ in range(200) for prediction in sweep.pipeline()]
    ids = [prediction for pair in zip(saved[:500], saved[-500:], strict=True) for prediction in pair]

    def one_by_one() -> list[object]:
        return [store.get_prediction(prediction, load_arrays=True) for prediction in ids]

    measure.ratio(one_by_one, lambda: store.load_arrays(ids), rounds=3, warmup=0)
    loaded = store.load_arrays(ids)
    assert loaded.prediction_ids == ids
    assert np.array_equal(loaded.y_pred_2d(), np.tile(sweep.y_pred, (1000, 1)))
