"""Every file operation of a call refused once, or from then on: `call folder stride`, run with `shim.c` preloaded.

For each fault: the call raises an error of ours or does its work; then, with the cause gone, it works at once, nothing
that was acknowledged before is missing, and no file is left open. A line of JSON for each fault that went otherwise,
and a count.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from helpers import PREDICTION, Sweep, begin_pipeline, begin_sweep, predict_with_arrays, save_chain
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError

# each kind of fault, once and from then on
KINDS = tuple(product((errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES), (False, True)))
MOST = 400  # operations of one call; none has so many
Call = Callable[[WorkspaceStore, Sweep], object]
_SHIM = ctypes.CDLL(None)


def refuse(folder: Path, number: int, error: int, lasting: bool) -> None:
    _SHIM.crash_fail(str(folder).encode(), ctypes.c_ulong(number), error, lasting)


def operations(name: str, root: Path, sweep: Sweep) -> int:
    """How many there are in a call that is refused none."""
    with WorkspaceStore(root / "workspace", flush_interval=None) as store:
        store.list_runs()
        refuse(root, MOST, errno.EIO, False)
        CALLS[name](store, sweep)
        done = int(_SHIM.crash_operations())
        refuse(root, 0, 0, False)
    return done


def pipeline(store: WorkspaceStore, sweep: Sweep) -> None:
    new = begin_pipeline(store, sweep.run)
    model = store.save_artifact({"of": new}, "dict", "model", "joblib")
    predict_with_arrays(store, Sweep(sweep.run, new, save_chain(store, new, fold_artifacts={"0": model})))
    store.complete_pipeline(new, 0.1, 0.2, "rmse", 5)


def bulk(store: WorkspaceStore, sweep: Sweep) -> None:
    folds = [f"bulk {row}" for row in range(1500)]
    columns = {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, "fold_id": folds}
    store.save_predictions(columns, y_pred=np.ones((1500, 5)), y_true=np.arange(5.0))


def fail(store: WorkspaceStore, sweep: Sweep) -> None:
    new = begin_pipeline(store, sweep.run)
    predict_with_arrays(store, Sweep(sweep.run, new, save_chain(store, new)))
    store.fail_pipeline(new, "as planned")


def delete(store: WorkspaceStore, sweep: Sweep) -> None:
    if store.get_run(doomed(store)) is not None:
        store.delete_run(doomed(store))


def doomed(store: WorkspaceStore) -> str:
    return str(store.sql("SELECT coalesce(max(run_id), '') FROM runs WHERE name = 'doomed'").item())


def transaction(store: WorkspaceStore, sweep: Sweep) -> None:
    with store.transaction():
        predict_with_arrays(store, sweep, fold_id="in a transaction")


def merge(store: WorkspaceStore, sweep: Sweep) -> None:
    store.merge(store.workspace_path.parent / "other")


def backup(store: WorkspaceStore, sweep: Sweep) -> None:
    store.backup(store.workspace_path.parent / "backup")


def restore(store: WorkspaceStore, sweep: Sweep) -> None:
    place = store.workspace_path.parent
    WorkspaceStore.restore(place / "kept", place / "restored", replace=True)


def discard(store: WorkspaceStore, sweep: Sweep) -> None:
    for prediction in store.sql("SELECT prediction_id FROM predictions WHERE fold_id = 'discarded'")["prediction_id"]:
        store.delete_prediction(prediction)


def replay(store: WorkspaceStore, sweep: Sweep) -> None:
    chain = store.sql("SELECT chain_id FROM chains WHERE model_class = 'Ridge'").item()
    store.replay_and_save([chain], np.ones((2, 3)), dataset="new")


def extract(store: WorkspaceStore, sweep: Sweep) -> None:
    place = store.workspace_path.parent / "extracted"
    shutil.rmtree(place, ignore_errors=True)
    store.extract([sweep.run], place)


CALLS: dict[str, Call] = {
    "pipeline": pipeline,
    "bulk": bulk,
    "fail": fail,
    "delete": delete,
    "transaction": transaction,
    "vacuum": lambda store, _: store.vacuum(),
    "gc": lambda store, _: store.gc_artifacts(),
    "merge": merge,
    "backup": backup,
    "extract": extract,
    "restore": restore,
    "discard": discard,
    "import": lambda store, _: store.import_chain(store.workspace_path.parent / "chain.n4a"),
    "replay": replay,
    "repair": lambda store, _: store.verify(repair=True),
}


def save_ridge(store: WorkspaceStore, pipeline: str) -> str:
    model = store.save_artifact(Ridge().fit(np.eye(3), [1.0, 2.0, 3.0]), "Ridge", "model", "joblib")
    step = {"step_idx": 1, "operator_class": "Ridge", "params": {}, "artifact_id": None, "stateless": False}
    return save_chain(store, pipeline, steps=[step], model_class="Ridge", fold_artifacts={"0": model})


def prepared(root: Path) -> Sweep:
    """A workspace with something acknowledged, one to merge, its backup, a bundle of its chain, and a run to delete."""
    with WorkspaceStore(root / "other") as store:
        pipeline(store, begin_sweep(store))
        store.backup(root / "kept")
        store.export_chain(save_ridge(store, begin_sweep(store).pipeline), root / "chain.n4a")
    with WorkspaceStore(root / "workspace") as store:
        sweep = begin_sweep(store)
        pipeline(store, sweep)
        doomed_run = store.begin_run("doomed", {}, [])
        pipeline(store, Sweep(doomed_run, "", ""))
        predict_with_arrays(store, sweep, fold_id="acknowledged")
        predict_with_arrays(store, sweep, fold_id="discarded")
        save_ridge(store, sweep.pipeline)
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    return sweep


def acknowledged(store: WorkspaceStore, sweep: Sweep) -> int:
    """How many arrays of the prepared pipeline are there, of one."""
    return int(
        store.sql(
            "SELECT count(y_pred) FROM predictions JOIN prediction_arrays USING (prediction_id)"
            " WHERE pipeline_id = ? AND fold_id = 'acknowledged'",
            [sweep.pipeline],
        ).item()
    )


def one(name: str, root: Path, sweep: Sweep, number: int, error: int, lasting: bool) -> tuple[bool, list[str]]:
    """Whether the operation was reached, and what went wrong."""
    wrong: list[str] = []
    open_before = len(os.listdir("/dev/fd"))
    with WorkspaceStore(root / "workspace", flush_interval=None) as store:
        store.list_runs()
        refuse(root, number, error, lasting)
        try:
            CALLS[name](store, sweep)
        except StoreError:
            pass
        except Exception as other:
            wrong.append(f"the error is {type(other).__name__}: {other}")
        was_reached = _SHIM.crash_refused() > 0
        refuse(root, 0, 0, False)
        for what, step in (("the call", lambda: CALLS[name](store, sweep)), ("a read", store.list_runs)):
            try:
                step()
            except Exception as other:
                wrong.append(f"{what} afterwards: {type(other).__name__}: {other}")
        wrong += [] if acknowledged(store, sweep) == 1 else ["what was acknowledged is missing"]
    with WorkspaceStore(root / "workspace") as store:
        findings = [str(finding) for finding in store.verify(quick=True).findings if not finding.is_leftover]
        wrong += findings if acknowledged(store, sweep) == 1 else [*findings, "lost after reopening"]
    left_open = len(os.listdir("/dev/fd")) - open_before
    return was_reached, [*wrong, f"{left_open} files are left open"] if left_open else wrong


def main(name: str, folder: str, stride: str) -> None:
    sound = Path(folder) / "sound"
    sweep, faults = prepared(sound), 0
    number_of_operations = operations(name, Path(shutil.copytree(sound, Path(folder) / "counted")), sweep)
    assert number_of_operations < MOST
    for place, (error, lasting) in enumerate(KINDS):
        step = int(stride) * (len(KINDS) + place) // len(KINDS)  # so that each kind meets other operations
        for number in range(1 + (place if step > 1 else 0), 1 + number_of_operations, step):
            root = Path(shutil.copytree(sound, Path(folder) / "root"))
            was_reached, wrong = one(name, root, sweep, number, error, lasting)
            shutil.rmtree(root)
            faults += was_reached  # the last ones may not come where others were refused
            how = "from then on" if lasting else "once"
            for problem in wrong:
                print(json.dumps([f"{name}: operation {number}, {errno.errorcode[error]} {how}", problem]))
    print(json.dumps(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
