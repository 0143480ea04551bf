"""Processes that save into one workspace at once, as sweeps of nirs4all 1.x do: everything of each is there, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import begin_sweep, child, finish, predict

from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

PIPELINES, FOLDS, PARTITIONS = 10, 7, ("train", "val", "test")
SAVED = PIPELINES * FOLDS * len(PARTITIONS)
# what `Predictions.flush` calls, and what nirs4all's executor calls around it
WRITER = f"""
import sys
import numpy as np
from helpers import begin_pipeline, predict, save_chain
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
workspace, name, reads = sys.argv[1:]
store = Store1x(workspace)
run = store.begin_run(name, {{}}, [{{"name": "corn"}}])
for place in range({PIPELINES}):
    pipeline = begin_pipeline(store, run, f"{{name}} {{place}}")
    chain = save_chain(store, pipeline)
    with store.transaction():
        records = []
        for fold in range({FOLDS}):
            for partition in {PARTITIONS}:
                made = f"{{name}}{{place:02}}{{fold}}{{partition:_>5}}".ljust(16, "_")
                saved = predict(store, pipeline, chain, fold_id=str(fold), partition=partition, prediction_id=made)
                arrays = {{"y_true": np.arange(60.0), "y_pred": np.arange(60.0) + place + fold / 10}}
                records.append({{"prediction_id": saved, "dataset_name": "corn", **arrays}})
        store.array_store.save_batch(records)
    store.bulk_update_chain_summaries([chain])
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    if reads == "reads":
        assert len(store.query_predictions(pipeline_id=pipeline)) == {FOLDS * len(PARTITIONS)}
store.complete_run(run, {{}})
store.close()
"""


@pytest.mark.parametrize("second", ["saves", "reads"])
def test_two_processes_keep_all_that_each_saves(tmp_path: Path, second: str) -> None:
    with Store1x(tmp_path / "w") as store:
        sweep = begin_sweep(store)
        predict(store, sweep.pipeline, sweep.chain)
        store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    writers = [child(WRITER, tmp_path / "w", name, reads) for name, reads in (("a", "saves"), ("b", second))]
    for writer in writers:
        finish(writer)
    with Store1x(tmp_path / "w") as store:
        assert len(store.list_runs(status="completed")) == 2
        assert len(store.list_pipelines()) == 1 + 2 * PIPELINES
        rows = store.query_predictions()
        ids = rows["prediction_id"].to_list()
        assert len(ids) == len(set(ids)) == 1 + 2 * SAVED
        arrays = store.array_store.load_batch(ids)
        assert len(arrays) == 2 * SAVED
        for name, found in arrays.items():
            place, fold = int(name[1:3]), int(name[3])
            assert np.array_equal(found["y_pred"], np.arange(60.0) + place + fold / 10)
        assert (store.query_chain_summaries()["cv_fold_count"] == FOLDS).sum() == 2 * PIPELINES
        assert store.verify().is_sound
