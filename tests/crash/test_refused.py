"""File operations of each call refused in turn: the error is typed and names its cause, the call can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import SHIM
from helpers import finish, library, program
from sampling import some

from n4a_fast import WorkspaceStore

# prints how many operations of the call were refused, and what was raised instead of a StoreError
REFUSED = """
import ctypes, errno, shutil, sys
from pathlib import Path
from helpers import PREDICTION, begin_pipeline, begin_sweep, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
shim = ctypes.CDLL(None)
folder, call, cause = Path(sys.argv[1]), sys.argv[2], errno.EIO

calls = {
    "open": lambda store, sweep: WorkspaceStore(folder / "new").close(),
    "save_artifact": lambda store, sweep: store.save_artifact({"a": 1}, "dict", "model", "joblib"),
    "complete_pipeline": lambda store, sweep: store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5),
    "fail_pipeline": lambda store, sweep: store.fail_pipeline(sweep.pipeline, "boom"),
    "delete_run": lambda store, sweep: store.delete_run(sweep.run),
    "gc_artifacts": lambda store, sweep: store.gc_artifacts(),
    "vacuum": lambda store, sweep: store.vacuum(),
    "save_predictions": lambda store, sweep: store.save_predictions(
        {**PREDICTION, "pipeline_id": sweep.pipeline, "fold_id": ["b", "c"]}, y_pred=[[1.0], [2.0]]),
    "list_runs": lambda store, sweep: store.list_runs(),
    "close": lambda store, sweep: store.close(),
    "shard": lambda store, sweep: store.shard(run_id=sweep.run).open().close(),
    "merge": lambda store, sweep: store.merge(folder / "other"),
}
with WorkspaceStore(folder / "other") as store:
    sweep = begin_sweep(store)
    store.save_artifact({"other": 1}, "dict", "model", "joblib")
    predict_with_arrays(store, sweep)
number, raw, told = 0, set(), set()
while True:
    number += 1 if number < 8 else 3
    shutil.rmtree(folder / "w", ignore_errors=True)
    shutil.rmtree(folder / "new", ignore_errors=True)
    store = WorkspaceStore(folder / "w")
    sweep = begin_sweep(store)
    store.save_artifact({"unused": number}, "dict", "model", "joblib")
    store.save_artifact({"other": 1}, "dict", "model", "joblib")  # a merge reads it
    model = store.save_artifact([number], "list", "model", "joblib")
    save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": model})
    predict_with_arrays(store, sweep)
    shim.crash_fail(str(folder).encode(), ctypes.c_ulong(number), ctypes.c_int(cause), 0)
    try:
        calls[call](store, sweep)
    except StoreError as error:
        told.add(str(error))
    except Exception as error:
        raw.add(f"{type(error).__name__}: {error}")
    was_refused = shim.crash_refused() > 0
    shim.crash_fail(b"", ctypes.c_ulong(0), 0, 0)
    if call != "close" or store._workspace is not None:
        calls[call](store, sweep) if call not in ("delete_run", "fail_pipeline") or store.list_runs().height else None
        store.close()
    if not was_refused:
        break
assert not raw, raw
assert number > 1 and told, "nothing was refused"
assert not any(" space" in text for text in told), told
print(number - 1)
"""
# refuses each of the last operations of a vacuum, when the file's name may mean the new one; prints how many
VACUUM = """
import ctypes, errno, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
shim = ctypes.CDLL(None)
with WorkspaceStore(sys.argv[1]) as store:
    sweep = begin_sweep(store)

    def is_reached(number):
        shim.crash_fail(sys.argv[1].encode(), ctypes.c_ulong(number), ctypes.c_int(errno.EIO), 0)
        try:
            store.vacuum()
        except StoreError:
            pass
        reached = shim.crash_refused() > 0
        shim.crash_fail(b"", ctypes.c_ulong(0), 0, 0)
        predict_with_arrays(store, sweep, fold_id=str(number))
        store.flush()
        return reached

    end = next(number for number in range(1, 400, 6) if not is_reached(number))
    print(sum(map(is_reached, range(end - 15, end))))
"""
CALLS = ("open", "save_artifact", "list_runs", "close", "shard", "merge")


@pytest.mark.parametrize("call", some(CALLS, 1))
def test_a_refused_file_operation_is_told_and_the_call_can_be_repeated(tmp_path: Path, call: str) -> None:
    assert int(finish(program("-c", tmp_path, call, code=REFUSED, LD_PRELOAD=str(library(SHIM))))) > 0


def test_an_error_of_a_block_is_the_callers_own(store: WorkspaceStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, store.transaction():
        (tmp_path / "of the caller").read_text()
    assert type(caught.value) is FileNotFoundError


def test_a_vacuum_that_is_refused_anything_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    assert int(finish(program("vacuum", tmp_path, code=VACUUM, LD_PRELOAD=str(library(SHIM))))) > 8
