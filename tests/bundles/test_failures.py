"""An export that fails leaves nothing behind, and what was there before stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundle_chains import case, save
from helpers import Sweep, child, finish, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreUnavailableError

EXPORTS = ("chain.n4a", "chain.n4a.py", "config.json", "run.yaml", "predictions.parquet", "dataset")


def export(store: WorkspaceStore, sweep: Sweep, chain: str, name: str, target: Path) -> Path:
    if name.startswith("chain"):
        return store.export_chain(chain, target, format=name.removeprefix("chain."))
    if name == "config.json":
        return store.export_pipeline_config(sweep.pipeline, target)
    if name == "run.yaml":
        return store.export_run(sweep.run, target)
    return store.export_predictions_parquet(target, arrays=True, partition_by="fold_id" if name == "dataset" else None)


@pytest.fixture
def chain(store: WorkspaceStore, sweep: Sweep) -> str:
    for fold in range(3):
        predict_with_arrays(store, sweep, fold_id=str(fold))
    return save(store, *case("curved_target"))


@pytest.mark.parametrize("name", EXPORTS)
def test_a_target_that_refuses_writing_is_named(store: WorkspaceStore, sweep: Sweep, chain: str, name: str) -> None:
    with pytest.raises(StoreUnavailableError, match=f"/proc/nowhere/{name}"):
        export(store, sweep, chain, name, Path("/proc/nowhere") / name)


@pytest.mark.parametrize("name", EXPORTS[:-1])
def test_a_folder_is_never_replaced_by_a_file(
    store: WorkspaceStore, sweep: Sweep, chain: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InvalidInputError, match="is a folder"):
        export(store, sweep, chain, name, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["workspace", name])


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("target", ["", "a\0b", "x" * 300])
def test_a_path_that_names_no_file_is_refused(
    store: WorkspaceStore, sweep: Sweep, chain: str, name: str, target: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailableError if len(target) > 255 else InvalidInputError):
        export(store, sweep, chain, name, tmp_path / target if target else Path())
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from helpers import Sweep
from test_failures import EXPORTS, export
from n4a_fast import WorkspaceStore

found = {}
with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    store.sql("SELECT 1")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
    for name in EXPORTS:
        try:
            export(store, Sweep(*sys.argv[2:5]), sys.argv[5], name, Path(sys.argv[6]) / name)
            found[name] = "written"
        except Exception as error:
            found[name] = type(error).__name__
print(json.dumps(found))
"""


def test_a_full_disk_leaves_no_half_written_file(
    store: WorkspaceStore, sweep: Sweep, chain: str, tmp_path: Path
) -> None:
    store.complete_run(sweep.run, {})
    store.close()
    target = tmp_path / "out"
    target.mkdir()
    (target / "run.yaml").write_text("mine")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{FULL_DISK}"
    found: dict[str, Any] = json.loads(finish(child(code, tmp_path / "workspace", *sweep, chain, target)))
    assert found == dict.fromkeys(EXPORTS, "StoreUnavailableError") | {"config.json": found["config.json"]}
    assert [path.name for path in target.iterdir() if path.name != "config.json"] == ["run.yaml"]
    assert (target / "run.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["chain.n4a", "chain.n4a.py"])
def test_an_unknown_chain_leaves_the_file_that_was_there(
    store: WorkspaceStore, sweep: Sweep, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(NotFoundError, match="nobody"):
        export(store, sweep, "nobody", name, tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"
