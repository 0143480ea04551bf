"""Run by nirs4all 1.4.10: what it says about the workspace `argv[1]`, as JSON; it predicts from the spectra in
`argv[2]`, by engine `argv[3]`.

First everything is read read-only, then the workspace is opened for writing and worked with.
"""

import json
import sys
import warnings

import nirs4all
import numpy as np
from nirs4all.pipeline.storage.workspace_store import WorkspaceStore

warnings.simplefilter("ignore")
root, X = sys.argv[1], np.load(sys.argv[2])
options = {"engine": sys.argv[3]} if sys.argv[3] else {}


def plain(value):
    if isinstance(value, dict):
        return {key: plain(json.loads(item) if key == "cv_scores" and item else item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return (
        value.tolist()
        if isinstance(value, np.ndarray)
        else value
        if value is None or isinstance(value, (int, float, str))
        else str(value)
    )


said = {}
with WorkspaceStore.open_readonly(root) as store:
    said["runs"] = plain(store.list_runs().to_dicts())
    said["pipelines"] = plain([store.get_pipeline(identifier) for identifier in store.list_pipelines()["pipeline_id"]])
    said["predictions"] = plain(
        [store.get_prediction(i, load_arrays=True) for i in sorted(store.query_predictions()["prediction_id"])]
    )
    said["summaries"] = plain(store.query_chain_summaries().to_dicts())
    said["ranking"] = {
        metric: [row["chain_id"] for row in store.query_top_chains(metric).to_dicts()]
        for metric in ("rmse", "mse", "r2", None)
    }
    said["best"] = plain(store.top_predictions(5).to_dicts())
    said["logs"] = [
        plain(store.get_pipeline_log(identifier).to_dicts())
        for identifier in sorted(store.list_pipelines()["pipeline_id"])
    ]
    every = [store.get_chain(identifier) for identifier in store.query_chain_summaries()["chain_id"]]
    chains = [chain["chain_id"] for chain in every if chain["fold_artifacts"]]
said["predicted"] = {
    chain: plain(np.ravel(nirs4all.predict(chain_id=chain, data=X, workspace_path=root, **options).y_pred))
    for chain in chains
}
with WorkspaceStore(root) as store:
    said["opened for writing"] = plain(store.query_chain_summaries().to_dicts())
    run = store.begin_run("more", {}, [{"name": "corn"}])
    pipeline = store.begin_pipeline(run, "p", {}, [], "corn", "h")
    chain = store.save_chain(pipeline, [], 0, "PLS", "", "per_fold", {}, {})
    fields = ("corn", "PLS", "PLS", "0", "val", 0.1, 0.2, 0.3, "rmse", "regression", 5, 7, {}, {}, None, None, 0, 0.0)
    store.save_prediction(pipeline, chain, *fields)
    store.set_run_project(run, store.create_project("grain"))
    store.bulk_update_chain_summaries([chain])
    said["after writing"] = [
        len(store.query_chain_summaries()),
        store.delete_dataset_predictions("corn"),
        store.delete_run(run) > 0,
        store.gc_artifacts(),
    ]
    said["at the end"] = len(store.query_predictions())
print(json.dumps(said))
