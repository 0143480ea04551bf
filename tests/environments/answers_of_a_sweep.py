"""What nirs4all 0.7.1 says of the newest run in a workspace, with whatever store it uses: python answers_of_a_sweep.py
WORKSPACE TARGET.npz SPECTRA.npy
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
from nirs4all.pipeline.storage import WorkspaceStore

CHAINS = 4  # of the best pipelines, replayed


def main(workspace: str, target: str, spectra: str) -> None:
    store = WorkspaceStore(Path(workspace))
    run = store.list_runs()["run_id"][0]
    names = dict(store.list_pipelines(run_id=run).select("pipeline_id", "name").iter_rows())
    arrays: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for row in store.query_predictions(run_id=run).iter_rows(named=True):
        key = "/".join(
            str(part)
            for part in (
                names[row["pipeline_id"]],
                row["fold_id"],
                row["partition"],
                row["model_name"],
                row["refit_context"],
            )
        )
        scores[key] = [
            row[name]
            for name in (
                "val_score",
                "test_score",
                "train_score",
                "metric",
                "n_samples",
                "n_features",
                "preprocessings",
            )
        ]
        found = store.get_prediction_arrays(row["prediction_id"])
        arrays |= {
            f"{key}/{name}": np.asarray(found[name], dtype=float)
            for name in ("y_true", "y_pred", "sample_indices")
            if found[name] is not None
        }
    best = store.top_predictions(n=10, metric="val_score", ascending=True, partition="val")
    metric = best["metric"][0]
    aggregated = store.query_top_aggregated_predictions(metric=metric, n=10, run_id=run)
    told = {
        "runs": store.list_runs().select("name", "status").rows(),
        "pipelines": sorted(
            store.list_pipelines(run_id=run).select("name", "status", "best_val", "best_test", "metric").rows()
        ),
        "scores": scores,
        "best": [
            [names.get(pipeline), score] for pipeline, score in best.select("pipeline_id", "val_score").iter_rows()
        ],
        "aggregated": aggregated.select(
            "model_name", "fold_count", "avg_val_score", "min_val_score", "max_val_score", "avg_test_score"
        ).rows(),
        "logs": store.get_run_log_summary(run).height,
    }
    ranked = store.list_pipelines(run_id=run).sort("best_val")["pipeline_id"].to_list()
    chains = [store.get_chains_for_pipeline(pipeline)["chain_id"][0] for pipeline in ranked]
    store.close()
    for pipeline, chain in [*zip(ranked, chains, strict=True)][:CHAINS]:
        arrays[f"chain/{names[pipeline]}"] = np.ravel(
            nirs4all.predict(chain_id=chain, data=np.load(spectra), workspace_path=workspace).y_pred
        )
    np.savez(target, told=json.dumps(told), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
