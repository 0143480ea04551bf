"""A flush that is refused after another process has put its rows into the tables: none is lost, none there twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Sweep, begin_pipeline, child, counts, finish, predict, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore, platform
from n4a_fast.errors import StoreUnavailableError

_READS = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(store.list_pipelines().height)
"""


def fill(store: WorkspaceStore, name: str) -> None:
    run = store.begin_run(name, {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run, name)
    model = store.save_artifact({"of": name}, "dict", "model", "joblib")
    chain = save_chain(store, pipeline, fold_artifacts={"0": model})
    predict_with_arrays(store, Sweep(run, pipeline, chain), fold_id=name)
    predict(store, pipeline, chain, fold_id=f"{name} too")
    store.log_step(pipeline, 1, "SNV", "end", message=name)


def test_rows_that_a_refused_flush_has_shown_to_another_process_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def refused(_: int) -> None:
        monkeypatch.undo()
        seen.append(finish(child(_READS, tmp_path)))
        raise OSError(5, "Input/output error")

    with WorkspaceStore(tmp_path, flush_interval=None) as store:
        fill(store, "first")
        store._open().database.detach()
        monkeypatch.setattr(platform, "sync_data", refused)
        with pytest.raises(StoreUnavailableError):
            store.flush()
        fill(store, "second")
        store.flush()
        store._open().database.detach()
        finish(child(_READS, tmp_path))
        fill(store, "third")
    assert seen == ["1\n"]
    wanted = {"predictions": 6, **dict.fromkeys(("runs", "pipelines", "chains", "chain_artifacts", "logs"), 3)}
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, *wanted) == wanted
        assert store.verify()
