"""What one process saves, another finds: the same id for the same content, and the object itself, at one copy of its
arrays.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import child, finish, read_line

from n4a_fast import WorkspaceStore

FITTED = """
import sys
import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from n4a_fast import WorkspaceStore
rows = np.random.default_rng(0).random((40, 30))
objects = [StandardScaler().fit(rows), make_pipeline(MinMaxScaler(), PLSRegression(3)).fit(rows, rows[:, 0]),
           PCA(2, svd_solver="full").fit(rows),
           {"used": {"b", "a"}, "by": {"name": frozenset("xyz")}}]
for place in sys.argv[1:]:
    with WorkspaceStore(place) as store:
        for obj in objects:
            for format_name in ("joblib", "cloudpickle"):
                print(store.save_artifact(obj, type(obj).__name__, "model", format_name))
"""
LOCAL = """
import sys
from n4a_fast import WorkspaceStore
def make(factor):
    class Local:
        def transform(self, x):
            return factor * x + len({"a", "b"})
    return Local()
with WorkspaceStore(sys.argv[1]) as store:
    for obj in (make(3), lambda x: 2 * x):
        print(store.save_artifact(obj, type(obj).__name__, "transformer", "cloudpickle"))
"""


def printed(code: str, *arguments: Any, seed: int = 0) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_what_is_fitted_anew_in_another_process_has_the_same_ids(tmp_path: Path) -> None:
    first, others = printed(FITTED, tmp_path, seed=1), printed(FITTED, tmp_path, tmp_path / "other", seed=2)
    assert others == [*first, *first]
    assert len(set(first)) >= 4
    with WorkspaceStore(tmp_path) as store:
        assert len(list((tmp_path / "artifacts").glob("??/*"))) == len(set(first)) == store.verify_artifacts().checked


def test_a_lambda_and_a_local_class_load_where_they_were_never_defined(tmp_path: Path) -> None:
    local, function = printed(LOCAL, tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert store.load_artifact(local).transform(5) == 17
        assert store.load_artifact(function)(21) == 42


def allocated(call: Callable[[], Any]) -> tuple[Any, int]:
    """What the call gives, and how many bytes it had in memory at its peak; mapped files are none of them."""
    tracemalloc.start()
    try:
        found = call()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("format_name", ["joblib", "cloudpickle", "pickle"])
def test_large_arrays_go_into_the_file_without_a_copy_and_come_back_with_one(
    tmp_path: Path, format_name: str, order: Any
) -> None:
    array = np.random.default_rng(0).random((1000, 2000)).copy(order)
    with WorkspaceStore(tmp_path) as store:
        store.save_artifact(1, "int", "note", format_name)
        saved, used = allocated(lambda: store.save_artifact({"w": array}, "dict", "model", format_name))
        assert used < 0.1 * array.nbytes
        again, used = allocated(lambda: store.save_artifact({"w": array}, "dict", "model", format_name))
        assert (again, used < 0.1 * array.nbytes) == (saved, True)
        store.flush()
        store.load_artifact(saved)
        loaded, used = allocated(lambda: store.load_artifact(saved))
        assert array.nbytes < used < 1.1 * array.nbytes
    assert np.array_equal(loaded["w"], array)
    loaded["w"][0] = 0  # the caller's own, and aligned
    assert loaded["w"].flags.aligned


FORK = """
import os, sys
from helpers import begin_pipeline, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("r", {}, [])
store.flush()
pipeline = begin_pipeline(store, run)
ids = [store.save_artifact("of the parent", "str", "model", "joblib")]
child = os.fork()
if child == 0:
    own = begin_pipeline(store, run)
    save_chain(store, own, fold_artifacts={"fold_0": store.save_artifact("of the child", "str", "model", "joblib")})
    store.complete_pipeline(own, 0.1, 0.1, "rmse", 1)
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("saved", flush=True)
sys.stdin.readline()
save_chain(store, pipeline, fold_artifacts={"fold_0": ids[0]})
store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
store.close()
"""


def test_a_fork_and_its_parent_keep_what_each_has_saved(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    parent = child(FORK, tmp_path)
    assert read_line(parent) == "saved"
    with WorkspaceStore(tmp_path) as store:
        assert store.gc_artifacts() == 0
        finish(parent)
        ids = store.sql("SELECT artifact_id FROM artifacts WHERE ref_count = 1")["artifact_id"]
        assert {store.load_artifact(name) for name in ids} == {"of the parent", "of the child"}
