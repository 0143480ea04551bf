"""What nirs4all 0.7.1 and its users ask of a store beyond the documented API; needs no nirs4all."""

from __future__ import annotations

import hashlib
import io
import pickle
import signal
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from helpers import DEADLINE, begin_pipeline, begin_sweep, child, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, StoreClosedError, UntrustedArtifactError
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore


@pytest.fixture
def embedded(tmp_path: Path, store: WorkspaceStore) -> Iterator[Nirs4allStore]:
    with Nirs4allStore(store.workspace_path) as opened:
        yield opened


def test_private_ways_to_send_sql_see_what_was_just_saved(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    predictions = [predict(embedded, sweep.pipeline, sweep.chain, fold_id=fold) for fold in ("0", "1", "2")]
    query = "SELECT prediction_id, fold_id FROM predictions WHERE pipeline_id = ? ORDER BY fold_id"
    rows = [(identifier, str(fold)) for fold, identifier in enumerate(predictions)]
    result = embedded._ensure_open().execute(query, [sweep.pipeline])
    assert [column[0] for column in result.description] == ["prediction_id", "fold_id"]
    assert (result.fetchone(), result.fetchall(), result.fetchone()) == (rows[0], rows[1:], None)
    assert embedded._ensure_open().execute("SELECT count(*) FROM v_aggregated_predictions").fetchall() == [(1,)]
    assert (
        embedded._ensure_open().execute(query, [sweep.pipeline]).pl().rows()
        == embedded._fetch_pl(query, [sweep.pipeline]).rows()
        == rows
    )
    assert embedded._fetch_one(query, [sweep.pipeline]) == {"prediction_id": predictions[0], "fold_id": "0"}
    assert embedded._fetch_one(query, ["unknown"]) is None
    assert embedded._fetch_pl(query, ["unknown"]).columns == ["prediction_id", "fold_id"]


def test_private_sql_cannot_write_and_needs_an_open_store(embedded: Nirs4allStore) -> None:
    with pytest.raises(InvalidInputError, match="one SELECT"):
        embedded._ensure_open().execute("DELETE FROM runs")
    embedded.close()
    with pytest.raises(StoreClosedError):
        embedded._ensure_open()


class Splitter:
    """An object that JSON has no form for."""


def test_objects_in_configurations_become_text_without_an_address(embedded: Nirs4allStore) -> None:
    run = embedded.begin_run("sweep", {"splitter": Splitter()}, [])
    pipeline = embedded.begin_pipeline(run, "0001", [{"split": Splitter(), "n": 3}], [], "corn", "")
    embedded.complete_run(run, {"best": Splitter()})
    text = f"<{Splitter.__module__}.Splitter object>"
    assert (embedded.get_run(run) or {})["config"] == {"splitter": text}
    assert (embedded.get_run(run) or {})["summary"] == {"best": text}
    assert (embedded.get_pipeline(pipeline) or {})["expanded_config"] == [{"split": text, "n": 3}]


def test_what_is_wrong_for_another_reason_is_still_refused(embedded: Nirs4allStore) -> None:
    run = embedded.begin_run("sweep", {}, [])
    with pytest.raises(InvalidInputError, match="generator_choices"):
        embedded.begin_pipeline(run, "0001", {}, "choices", "corn", "")  # type: ignore[arg-type]


def test_a_copy_sent_to_a_worker_process_is_a_store_of_the_same_folder(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    embedded.flush()
    copy = pickle.loads(pickle.dumps(embedded))
    assert copy.workspace_path == embedded.workspace_path
    assert (copy.get_run(sweep.run) or {})["status"] == "running"
    copy.close()


def test_chains_saved_a_moment_ago_read_like_stored_ones(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    save_chain(embedded, sweep.pipeline, branch_path=[0, 1], source_index=2, fold_artifacts={"0": "a", "1": "b"})
    pending = embedded.get_chains_for_pipeline(sweep.pipeline)
    with WorkspaceStore(embedded.workspace_path) as plain:
        stored = plain.get_chains_for_pipeline(sweep.pipeline)
    assert pending.schema == stored.schema
    assert pending.rows() == stored.rows()
    assert embedded.get_chains_for_pipeline(sweep.pipeline).rows() == stored.rows()
    assert embedded.get_chains_for_pipeline("unknown").is_empty()


def _register(store: WorkspaceStore, artifact_id: str, content: object, format_name: str = "joblib") -> str:
    data = content if isinstance(content, bytes) else pickle.dumps(content)
    digest = hashlib.sha256(data).hexdigest()
    path = store.workspace_path / "artifacts" / digest[:2] / f"model_dict_{digest[:12]}.joblib"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    relative = path.relative_to(store.workspace_path / "artifacts").as_posix()
    return store.register_existing_artifact(
        artifact_id, relative, f"sha256:{digest}", "dict", "model", format_name, len(data)
    )


def _pipeline_of(store: WorkspaceStore, model: object, *, drained: bool) -> str:
    """One pipeline as nirs4all stores it, chain first; the chain's id."""
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    steps = [
        {
            "step_idx": 1,
            "operator_class": "dict",
            "params": {},
            "artifact_id": "sweep$1:0",
            "artifact_ids": ["sweep$1:0"],
            "stateless": False,
        }
    ]
    chain = save_chain(
        store, pipeline, steps=steps, fold_artifacts={"0": "sweep$1:0"}, shared_artifacts={"1": ["sweep$1:0"]}
    )
    if drained:
        store.sql("SELECT 1")
    for _ in range(2):
        _register(store, "sweep$1:0", model)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return chain


@pytest.mark.parametrize("drained", [False, True])
def test_an_artifact_id_that_comes_back_with_other_content_keeps_both(embedded: Nirs4allStore, drained: bool) -> None:
    chains = [_pipeline_of(embedded, {"run": run}, drained=drained) for run in (0, 1, 1, 2)]
    with Nirs4allStore(embedded.workspace_path) as again:
        chains.append(_pipeline_of(again, {"run": 1}, drained=drained))
    stored = [embedded.get_chain(chain) or {} for chain in chains]
    ids = [chain["fold_artifacts"]["0"] for chain in stored]
    assert [embedded.load_artifact(identifier) for identifier in ids] == [
        {"run": 0},
        {"run": 1},
        {"run": 1},
        {"run": 2},
        {"run": 1},
    ]
    assert ids[0] == "sweep$1:0"
    for chain, identifier in zip(stored, ids, strict=True):
        assert chain["shared_artifacts"] == {"1": [identifier]}
        assert chain["steps"][0]["artifact_ids"] == [chain["steps"][0]["artifact_id"]] == [identifier]
    counts = dict(embedded.sql("SELECT artifact_id, ref_count FROM artifacts").iter_rows())
    assert counts == {identifier: ids.count(identifier) for identifier in ids}


def test_an_artifact_that_was_collected_can_be_registered_again(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    _register(embedded, "sweep$1:0", {"a": 1})
    embedded.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert embedded.gc_artifacts() == 1
    _register(embedded, "sweep$1:0", {"a": 1})
    assert embedded.load_artifact("sweep$1:0") == {"a": 1}


UNFINISHED = """
import os, sys
from helpers import begin_pipeline, begin_sweep, predict
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore
store = Nirs4allStore(sys.argv[1])
sweep = begin_sweep(store)
predict(store, sweep.pipeline, sweep.chain)
store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
predict(store, begin_pipeline(store, sweep.run, "0002_pls"), None)
"""


def _run(tmp_path: Path, ending: str) -> tuple[int | None, str]:
    """How a program ended, and what it said on stderr."""
    process = child(f"{UNFINISHED}{ending}\n", tmp_path / "w")
    _, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ValueError('x')", "ValueError"),
        ("sys.exit(0)", "interrupted"),
    ],
)
def test_a_run_cut_short_is_failed_when_the_program_ends(tmp_path: Path, ending: str, told: str) -> None:
    _run(tmp_path, ending)
    with WorkspaceStore.open_readonly(tmp_path / "w") as store:
        assert store.list_runs()["status"].to_list() == ["failed"]
        assert store.list_runs()["error"].to_list() == [f"{told}: the program ended before this did"]
        assert store.list_pipelines().sort("name").select("name", "status").rows() == [
            ("0001_pls", "completed"),
            ("0002_pls", "failed"),
        ]
        assert len(store.query_predictions()) == 1, "of the pipeline that was complete"


@pytest.mark.parametrize("ending", ["store.close()", "os.kill(os.getpid(), 9)"])
def test_a_store_that_was_closed_or_killed_leaves_the_run_as_it_is(tmp_path: Path, ending: str) -> None:
    code, errors = _run(tmp_path, ending)
    assert code == (0 if "close" in ending else -signal.SIGKILL), errors
    with WorkspaceStore.open_readonly(tmp_path / "w") as store:
        assert store.list_runs()["status"].to_list() == ["running"]
        assert "completed" in store.list_pipelines()["status"].to_list()


def test_a_forked_child_ends_nothing_of_its_parent(tmp_path: Path) -> None:
    done = _run(
        tmp_path,
        "import atexit, warnings\nwarnings.simplefilter('ignore')  # Python 3.12 warns of forks beside threads\n"
        "if os.fork() == 0: atexit._run_exitfuncs(), os._exit(0)\nos.wait()\n"
        "store.complete_run(sweep.run, {})\nstore.close()",
    )
    assert done == (0, "")
    with WorkspaceStore.open_readonly(tmp_path / "w") as store:
        assert store.list_runs()["status"].to_list() == ["completed"]


def test_what_was_ended_in_time_stays_as_it_was_ended(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    save_chain(embedded, begin_pipeline(embedded, sweep.run, "0002_pls"))
    embedded.fail_pipeline(sweep.pipeline, "no spectra")
    embedded.fail_run(sweep.run, "no data")
    assert embedded.list_runs()["error"].to_list() == ["no data"]


@pytest.mark.parametrize("format_name", ["sklearn", "json", "tensorflow_saved_model", "joblib", "pickle"])
def test_every_name_that_nirs4all_has_for_a_format_is_saved_and_loads(
    embedded: Nirs4allStore, format_name: str
) -> None:
    content = {"recommended": ["SNV"], "scores": np.arange(3.0)}
    saved = embedded.save_artifact(content, "dict", "step_artifact", format_name)
    keyed = embedded.save_artifact_with_cache_key(
        content, "dict", "step_artifact", format_name, "chain", "input", "set"
    )
    for identifier in (saved, keyed):
        assert embedded.load_artifact(identifier)["recommended"] == ["SNV"]
    assert embedded.find_cached_artifact("chain", "input") == keyed


def test_an_array_in_numpy_s_own_format_is_registered_described_and_loaded(embedded: Nirs4allStore) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(4.0))
    _register(embedded, "means", buffer.getvalue(), "numpy_npy")
    np.testing.assert_array_equal(embedded.load_artifact("means"), np.arange(4.0))
    described = embedded.describe_artifact("means")
    assert (described.format, described.class_name, described.globals) == ("numpy_npy", "dict", ())


def test_a_file_of_another_library_is_loaded_as_far_as_that_library_is_trusted(embedded: Nirs4allStore) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(4.0))
    _register(embedded, "means", buffer.getvalue(), "numpy_npy")
    embedded.close()
    for trusted in ("none", ["sklearn"]):
        with (
            WorkspaceStore(embedded.workspace_path, trusted=trusted) as store,
            pytest.raises(UntrustedArtifactError, match="numpy"),
        ):
            store.load_artifact("means")
    with WorkspaceStore(embedded.workspace_path, trusted=["numpy"]) as store:
        assert store.load_artifact("means").sum() == 6


def test_an_array_of_objects_in_numpy_s_format_runs_no_code(embedded: Nirs4allStore) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Splitter()], dtype=object), allow_pickle=True)
    _register(embedded, "objects", buffer.getvalue(), "numpy_npy")
    with pytest.raises(ValueError, match="allow_pickle"):
        embedded.load_artifact("objects")


ROLLED_BACK = """
import sys
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore
store = Nirs4allStore(sys.argv[1])
run = store.begin_run("a", {}, [{"name": "d"}])
store.flush()
try:
    with store.transaction():
        store.begin_pipeline(run, "p", [], [], "d", "h")
        raise ValueError("the user's")
except ValueError:
    pass
"""


def test_a_pipeline_of_a_transaction_that_was_rolled_back_hinders_no_end_of_a_program(tmp_path: Path) -> None:
    ended = child(ROLLED_BACK, tmp_path / "w")
    assert ended.communicate(timeout=DEADLINE) == ("", "")
    assert ended.returncode == 0
    with WorkspaceStore(tmp_path / "w") as store:
        assert store.list_runs()["status"].to_list() == ["failed"]
        assert store.list_pipelines().is_empty()


class TaskType(str, Enum):  # noqa: UP042  as nirs4all has it: str() of a member gives its name
    REGRESSION = "regression"


def test_members_of_an_enum_of_texts_are_stored_as_their_text(embedded: Nirs4allStore) -> None:
    sweep = begin_sweep(embedded)
    prediction = predict(embedded, sweep.pipeline, sweep.chain, task_type=TaskType.REGRESSION)
    assert (embedded.get_prediction(prediction) or {})["task_type"] == "regression"
    assert embedded.query_predictions()["task_type"].to_list() == ["regression"]
