"""What nirs4all 1.x, its users and its studio ask of a store; needs no nirs4all."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from helpers import begin_pipeline, begin_sweep, child, count, finish, predict, save_chain

from n4a_fast import WorkspaceStore, platform
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, InvalidInputError
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
from n4a_fast.integrations.workspaces import convert


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store1x]:
    with Store1x(tmp_path / "w") as opened:
        yield opened


def again(store: Store1x) -> Store1x:
    """The store as another program finds it."""
    store.close()
    return Store1x(store.workspace_path)


# -- transactions, modes ---------------------------------------------------------------------


def test_a_block_inside_another_joins_it(store: Store1x) -> None:
    with store.transaction():
        run = store.begin_run("outer", {}, [])
        with store.transaction():
            store.begin_pipeline(run, "inner", {}, [], "corn", "")
    assert store.list_pipelines()["name"].to_list() == ["inner"]
    with pytest.raises(ValueError, match="stop"), store.transaction():
        with store.transaction():
            store.begin_run("lost", {}, [])
        raise ValueError("stop")
    assert store.list_runs()["name"].to_list() == ["outer"]


@pytest.mark.parametrize("reads", [False, True], ids=["saves", "reads, too"])
def test_what_was_saved_before_a_block_is_durable_with_it_and_stays_if_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    store = Store1x(tmp_path / "w", flush_interval=None)
    run = store.begin_run("sweep", {}, [])
    store.flush()
    syncs: list[int] = []
    sync = platform.sync_data
    monkeypatch.setattr(platform, "sync_data", lambda descriptor: syncs.append(descriptor) or sync(descriptor))
    first = begin_pipeline(store, run, "first")
    with store.transaction():
        predict(store, first, save_chain(store, first))
    assert len(syncs) == 1
    second = begin_pipeline(store, run, "second")
    chain = save_chain(store, second)
    with pytest.raises(ValueError, match="stop"), store.transaction():
        predict(store, second, chain)
        assert not reads or store.query_predictions().height == 2
        raise ValueError("stop")
    predict(store, second, chain, fold_id="1")
    with again(store) as later:
        assert sorted(later.list_pipelines()["name"]) == ["first", "second"]
        assert later.query_predictions(pipeline_id=second)["fold_id"].to_list() == ["1"]
        assert later.query_predictions().height == 2


def test_a_reader_changes_nothing_and_needs_a_store(store: Store1x, tmp_path: Path) -> None:
    begin_sweep(store)
    store.flush()
    for reader in (Store1x(store.workspace_path, read_only=True), Store1x.open_readonly(store.workspace_path)):
        with reader:
            assert reader.list_runs().height == 1
            with pytest.raises(Exception, match="read-only"):
                reader.begin_run("more", {}, [])
    with pytest.raises(FileNotFoundError):
        Store1x.open_readonly(tmp_path / "nothing")


def test_artifacts_are_not_collected_inside_a_transaction(store: Store1x) -> None:
    path = store.get_artifact_path(store.save_artifact([1.5], "list", "model", "joblib"))
    store.close()
    with Store1x(store.workspace_path) as again:
        with again.transaction():
            assert again.gc_artifacts() == 0
            assert path.exists()
        assert again.gc_artifacts() == 1


# -- artifacts -------------------------------------------------------------------------------


def promise(store: Store1x, artifact_id: str, content: object) -> tuple[Path, bytes]:
    """Register a file that is not written; where it would be, and what would be in it."""
    data = pickle.dumps(content)
    digest = hashlib.sha256(data).hexdigest()
    relative = f"{digest[:2]}/model_{digest[:12]}.pkl"
    store.register_existing_artifact(artifact_id, relative, f"sha256:{digest}", "PLS", "model", "pickle", len(data))
    return store.workspace_path / "artifacts" / relative, data


def with_chain(store: Store1x, artifact_id: str) -> tuple[str, str]:
    pipeline = begin_pipeline(store, store.begin_run("sweep", {}, [{"name": "corn"}]))
    return pipeline, save_chain(store, pipeline, fold_artifacts={"0": artifact_id}, shared_artifacts={})


def test_an_artifact_is_registered_before_its_file_is_written_and_verified_when_it_is(store: Store1x) -> None:
    pipeline, chain = with_chain(store, "a")
    path, data = promise(store, "a", {"n": 1})
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    with pytest.raises(ArtifactMissingError, match="nirs4all kept no model"):
        store.load_artifact("a")
    assert store.verify_artifacts()
    path.parent.mkdir()
    path.write_bytes(data)
    assert store.load_artifact("a") == {"n": 1}
    assert store.describe_artifact("a").origin == "registered"
    assert store.gc_artifacts() == 0
    assert (store.get_chain(chain) or {})["fold_artifacts"] == {"0": "a"}


def test_references_count_saves_until_a_chain_names_what_was_saved(store: Store1x) -> None:
    def references(artifact: str) -> Any:
        found = store._ensure_open().execute("SELECT ref_count FROM artifacts WHERE artifact_id = ?", [artifact])
        return found.fetchone()[0]

    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    first, second = ([1.5, 2.5], [3.5])
    one, same, other = (store.save_artifact(each, "list", "transformer", "joblib") for each in (first, first, second))
    assert (one == same, references(one), references(other)) == (True, 2, 1)
    chain = save_chain(store, pipeline, shared_artifacts={"1": one})
    assert (references(one), references(other)) == (2, 1)  # the chain, and this session while the pipeline is open
    store._delete_chain_predictions(chain)
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    store.delete_pipeline(pipeline)
    assert store._fetch_pl("SELECT * FROM artifacts WHERE artifact_id = ? AND ref_count > 0", [one]).is_empty()
    with again(store) as later:
        assert later._fetch_pl("SELECT artifact_id FROM artifacts WHERE ref_count > 0").is_empty()


def test_a_file_that_came_with_other_content_is_told(store: Store1x) -> None:
    pipeline, _ = with_chain(store, "a")
    path, data = promise(store, "a", {"n": 1})
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    path.parent.mkdir()
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(ArtifactCorruptError):
        store.load_artifact("a")


def test_a_file_that_came_after_its_program_was_gone_is_loaded(store: Store1x) -> None:
    pipeline, _ = with_chain(store, "a")
    path, data = promise(store, "a", {"n": 1})
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    with again(store) as later:
        path.parent.mkdir()
        path.write_bytes(data)
        assert later.load_artifact("a") == {"n": 1}


def save_in_order_of_nirs4all(store: Store1x, run: str, name: str) -> tuple[str, str]:
    """A pipeline that promises two models; its id and that of its chain."""
    pipeline = begin_pipeline(store, run, name)
    store.log_step(pipeline, 1, "PLS", "start")
    models = {str(fold): f"{pipeline}$abc:{fold}" for fold in range(2)}
    chain = save_chain(store, pipeline, fold_artifacts=models, shared_artifacts={})
    for artifact_id in models.values():
        promise(store, artifact_id, {"model": artifact_id})
    assert store.get_chains_for_pipeline(pipeline)["chain_id"].to_list() == [chain]
    with store.transaction():
        predicted = predict(store, pipeline, chain)
        store.array_store.save_batch([{"prediction_id": predicted, "y_true": np.ones(3), "y_pred": np.ones(3)}])
    store.bulk_update_chain_summaries([chain])
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return pipeline, chain


def test_pipelines_of_a_slow_sweep_never_attach_the_file(store: Store1x) -> None:
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    database = store._open().database
    database.detach()
    saved = [save_in_order_of_nirs4all(store, run, name) for name in ("first", "second")]
    assert database.attached == 0
    with again(store) as later:
        for pipeline, chain in saved:
            assert (later.get_pipeline(pipeline) or {})["status"] == "completed"
            artifacts = (later.get_chain(chain) or {})["fold_artifacts"]
            assert artifacts == {fold: f"{pipeline}$abc:{fold}" for fold in ("0", "1")}
            for artifact_id in artifacts.values():
                with pytest.raises(ArtifactMissingError, match="nirs4all kept no model"):
                    later.load_artifact(artifact_id)
        assert later.query_predictions().height == 2


def test_an_id_that_comes_again_with_other_content_is_told_from_memory_as_from_the_tables(store: Store1x) -> None:
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    database = store._open().database
    found = []
    for is_attached in (False, True):
        pipeline = begin_pipeline(store, run, f"attached: {is_attached}")
        database.attach() if is_attached else database.detach()
        chain = save_chain(store, pipeline, fold_artifacts={"0": f"{pipeline}$abc:0"}, shared_artifacts={})
        promise(store, f"{pipeline}$abc:0", {"n": 1})
        store.flush()
        if is_attached:
            store.query_predictions()  # it is in the tables from now on
        promise(store, f"{pipeline}$abc:0", {"n": 2})
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        found.append((store.get_chain(chain) or {})["fold_artifacts"]["0"].removeprefix(pipeline))
    assert found[0] == found[1]
    assert found[0].startswith("$abc:0@")


# -- pipelines and chains --------------------------------------------------------------------


def test_a_failed_pipeline_keeps_what_its_first_model_stored(store: Store1x) -> None:
    sweep = begin_sweep(store)
    predict(store, sweep.pipeline, sweep.chain)
    store.fail_pipeline(sweep.pipeline, "the second model breaks")
    with again(store) as later:
        (pipeline,) = later.list_pipelines().to_dicts()
        assert (pipeline["status"], pipeline["error"]) == ("failed", "the second model breaks")
        assert later.query_predictions().height == 1
        assert later.get_chain(sweep.chain) is not None


def test_a_pipeline_of_this_process_reads_the_same_from_memory_and_from_its_table(store: Store1x) -> None:
    sweep = begin_sweep(store)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    in_memory = store.get_pipeline(sweep.pipeline)
    assert in_memory is not None
    with again(store) as later:
        assert later.get_pipeline(sweep.pipeline) == in_memory
        assert later.get_pipeline("unknown") is None


DELETE_RUN = "import sys; from n4a_fast import WorkspaceStore; WorkspaceStore(sys.argv[1]).delete_run(sys.argv[2])"


@pytest.mark.parametrize("ahead", [0, 1, 6])
def test_rows_of_a_run_are_read_once_and_again_after_every_change(store: Store1x, ahead: int) -> None:
    run, other = (store.begin_run(name, {}, [{"name": "corn"}]) for name in ("first", "second"))
    pipelines = [begin_pipeline(store, each, f"p{n}") for each in (run, other) for n in range(3)]
    chains = [save_chain(store, pipeline) for pipeline in pipelines for _ in range(2)]
    for pipeline in pipelines:
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)

    def told(asked: Store1x) -> list[Any]:
        with WorkspaceStore.open_readonly(store.workspace_path) as plain:
            wanted = [(plain.get_pipeline(each), plain.get_chains_for_pipeline(each).to_dicts()) for each in pipelines]
        with asked.read_together() as workspace:
            asked._of_runs.read_ahead(workspace, pipelines[:ahead], chains=ahead > 1)
        found = [(asked.get_pipeline(each), asked.get_chains_for_pipeline(each).to_dicts()) for each in pipelines]
        assert found == wanted
        return [len(rows) for _, rows in found]

    with again(store) as later:
        assert told(later) == [2] * 6
        added = save_chain(later, pipelines[0])
        assert told(later) == [3, 2, 2, 2, 2, 2]
        with later.transaction():
            later.delete_pipeline(pipelines[1])
            assert later.get_pipeline(pipelines[1]) is None
            assert later.get_chains_for_pipeline(pipelines[0])["chain_id"].to_list() == [*chains[:2], added]
        assert told(later) == [3, 0, 2, 2, 2, 2]
        finish(child(DELETE_RUN, store.workspace_path, other))
        assert told(later) == [3, 0, 2, 0, 0, 0]


def test_chains_carry_their_summary_and_their_manifest(store: Store1x) -> None:
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    manifest = {"version": 2, "fingerprint": "f", "sources": ["a"]}
    given = (pipeline, [], 1, "PLS", "", "per_fold", {}, {})
    chain = store.save_chain(*given, dataset_name="corn", relation_replay_manifest=manifest)
    plain = store.save_chain(*given)
    for fold, score in (("0", 0.2), ("1", 0.4), ("avg", 9.0)):
        predict(store, pipeline, chain, fold_id=fold, val_score=score)
    pending = store.get_chains_for_pipeline(pipeline)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    store.bulk_update_chain_summaries([chain])
    found = store.get_chain(chain) or {}
    assert found["relation_replay_manifest"] == manifest
    assert (found["relation_replay_version"], found["relation_replay_fingerprint"]) == (2, "f")
    assert found["cv_val_score"] == pytest.approx(0.3)
    assert (found["cv_fold_count"], found["dataset_name"], found["metric"]) == (2, "corn", "rmse")
    assert (store.get_chain(plain) or {})["relation_replay_manifest"] is None
    stored = store.get_chains_for_pipeline(pipeline)
    assert (stored.columns, stored["chain_id"].to_list()) == (pending.columns, [chain, plain])
    counted = store._fetch_pl("SELECT chain_id, cv_fold_count FROM chains WHERE pipeline_id = ?", [pipeline])
    assert dict(counted.iter_rows()) == {chain: 2, plain: None}
    with pytest.raises(InvalidInputError, match="relation_replay_manifest"):
        store.export_chain(chain, store.workspace_path / "chain.n4a")


# -- predictions and their arrays ------------------------------------------------------------


def saved(store: Store1x, **arrays: Any) -> str:
    sweep = begin_sweep(store)
    prediction = predict(store, sweep.pipeline, sweep.chain)
    assert store.array_store.save_batch([{"prediction_id": prediction, "dataset_name": "corn", **arrays}]) == 1
    return prediction


@pytest.mark.parametrize(
    ("y_true", "y_pred", "task"),
    [
        (np.array([0.5, 1.5]), np.array([0.25, 2.0]), "regression"),
        (np.array([[0.5, 1.0], [1.5, 2.0]]), np.array([[0.25, 1.0], [2.0, 3.0]]), "regression"),
        (np.array(["wheat", "barley"]), np.array(["wheat", "maize"]), "multiclass_classification"),
        (np.array(["no", "yes"], dtype=object), np.array(["no", "no"], dtype=object), "binary_classification"),
        (np.array([2, 7]), np.array([7, 7]), "multiclass_classification"),
        (np.array(["a", "b"]), None, "binary_classification"),
    ],
    ids=["numbers", "two targets", "texts", "objects", "integers", "one target"],
)
def test_targets_come_back_as_they_were_saved(store: Store1x, y_true: Any, y_pred: Any, task: str) -> None:
    prediction = saved(store, y_true=y_true, y_pred=y_pred, task_type=task)
    with again(store) as later:
        found = later.array_store.load_single(prediction) or {}
        np.testing.assert_array_equal(found["y_true"], y_true)
        assert found["y_true"].dtype.kind == ("U" if y_true.dtype.kind == "O" else y_true.dtype.kind)
        if y_pred is None:
            assert found["y_pred"] is None
        else:
            np.testing.assert_array_equal(found["y_pred"], y_pred)


def test_what_else_comes_with_a_prediction_is_kept_and_goes_with_it(store: Store1x) -> None:
    prediction = saved(
        store,
        y_true=np.arange(2.0),
        y_pred=np.arange(2.0),
        y_proba=np.array([[0.25, 0.75], [1.0, 0.0]]),
        X=np.arange(6.0).reshape(2, 3),
        sample_indices=np.array([4, 9]),
        weights=np.array([0.5, 0.5]),
        sample_metadata={"site": np.array(["a", "b"]), "depth": [1, np.int64(2)], "by": "me", "of": {"lot": 3}},
        result_metadata={"schema": "s", "deep": {"n": 1}},
    )
    row = store.get_prediction(prediction, load_arrays=True) or {}
    np.testing.assert_array_equal(row["y_proba"], [[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(row["X"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(row["sample_indices"], [4, 9])
    assert (row["sample_indices"].dtype, row["spectra"]) == (np.int32, None)
    assert row["sample_metadata"] == {"site": ["a", "b"], "depth": [1, 2], "by": "me", "of": {"lot": 3}}
    assert row["result_metadata"] == {"schema": "s", "deep": {"n": 1}}
    assert store.array_store.load_batch([prediction, "unknown"]).keys() == {prediction}
    store.array_store.save_batch([{"prediction_id": prediction, "sample_metadata": {"made": [1 + 2j, Path("a")]}}])
    assert (store.array_store.load_single(prediction) or {})["sample_metadata"] == {"made": ["(1+2j)", "a"]}
    assert store.delete_prediction(prediction)
    assert store.sql("SELECT * FROM carried").is_empty()


@pytest.mark.long
def test_labels_and_metadata_go_to_a_workspace_of_nirs4all_and_come_back(store: Store1x, tmp_path: Path) -> None:
    labels = np.array(["wheat", "barley"])
    prediction = saved(
        store, y_true=labels, y_pred=labels[::-1], task_type="binary_classification", result_metadata={"n": 1}
    )
    store.close()
    convert(store.workspace_path, tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "back")
    with Store1x(tmp_path / "back") as back:
        found = back.array_store.load_single(prediction) or {}
    np.testing.assert_array_equal(found["y_true"], labels)
    np.testing.assert_array_equal(found["y_pred"], labels[::-1])
    assert found["result_metadata"] == {"n": 1}


def test_arrays_are_written_as_a_file_for_those_who_look_for_one(store: Store1x) -> None:
    prediction = saved(store, y_true=np.arange(3.0), y_pred=np.arange(3.0) + 0.5)
    arrays = store.array_store
    path = arrays._parquet_path("corn")
    frame = arrays.load_dataset("corn")
    assert path.is_file()
    assert frame["prediction_id"].to_list() == [prediction]
    assert frame["y_pred"].to_list() == [[0.5, 1.5, 2.5]]
    assert not arrays._parquet_path("rye").exists()
    with pytest.raises(FileNotFoundError, match="rye"):
        arrays.load_dataset("rye")
    assert arrays.list_datasets() == ["corn"]
    assert arrays.stats()["total_rows"] == 1
    assert arrays.integrity_check({prediction, "x"}) == {"orphan_ids": [], "missing_ids": ["x"], "corrupt_files": []}
    assert store.compact_arrays()["corn"]["rows_removed"] == 0


def test_places_in_relations_and_missing_scores_are_kept(store: Store1x) -> None:
    sweep = begin_sweep(store)
    related = {"prediction_scope": "reduced", "unit_id": "u1", "sample_influence_weight": 0.25, "row_id": None}
    prediction = predict(store, sweep.pipeline, sweep.chain, val_score=float("nan"), **related)
    row = store.get_prediction(prediction) or {}
    assert row["val_score"] is None
    assert (row["prediction_scope"], row["unit_id"], row["sample_influence_weight"]) == ("reduced", "u1", 0.25)
    assert row["row_id"] is None
    frame = store._fetch_pl(
        "SELECT unit_id, sample_influence_weight FROM predictions WHERE prediction_scope = 'reduced'"
    )
    assert frame.rows() == [("u1", 0.25)]


@pytest.mark.parametrize("kind", [Store1x, Nirs4allStore])
def test_a_prediction_that_is_known_keeps_its_first_id(tmp_path: Path, kind: type[Nirs4allStore]) -> None:
    with kind(tmp_path / "w") as store:
        sweep = begin_sweep(store)
        first = predict(store, sweep.pipeline, sweep.chain, prediction_id="first", val_score=0.5)
        store.save_prediction_arrays(first, np.zeros(2), np.zeros(2))
        assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second", val_score=0.25) == "first"
        store.flush()
        assert predict(store, sweep.pipeline, sweep.chain, prediction_id="third", val_score=0.125) == "first"
        assert store.query_predictions().select("prediction_id", "val_score").rows() == [("first", 0.125)]


def test_arrays_are_not_compacted_inside_a_transaction(store: Store1x) -> None:
    with store.transaction(), pytest.raises(RuntimeError, match="outside of transaction"):
        store.compact_arrays()


def test_deleting_predictions_takes_what_they_leave_empty(store: Store1x) -> None:
    sweep = begin_sweep(store)
    other = save_chain(store, sweep.pipeline)
    first, second = (predict(store, sweep.pipeline, sweep.chain, fold_id=fold) for fold in ("0", "fold_1"))
    predict(store, sweep.pipeline, other)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert store.delete_prediction(first)
    assert store.get_chain(sweep.chain) is not None
    assert store._delete_prediction_group(sweep.chain, "1") == 1
    assert store.get_prediction(second) is None
    assert store.get_chain(sweep.chain) is None
    assert store.get_pipeline(sweep.pipeline) is not None
    told = store._delete_predictions_matching(dataset_name="corn")
    assert (told["deleted_predictions"], told["deleted_chains"], told["deleted_pipelines"]) == (1, 1, 1)
    assert store.list_runs().height == 1
    assert store._delete_predictions_matching(prediction_ids=[])["deleted_predictions"] == 0
    with pytest.raises(ValueError, match="name what is to be deleted"):
        store._delete_predictions_matching()


def test_a_pipeline_that_runs_goes_with_its_last_prediction_and_its_artifacts(store: Store1x) -> None:
    shared = store.save_artifact({"of": "both"}, "dict", "model", "joblib")
    sweeps = []
    for dataset in ("corn", "rye"):
        own = store.save_artifact({"of": dataset}, "dict", "model", "joblib")
        pipeline = begin_pipeline(store, store.begin_run("sweep", {}, [{"name": dataset}]), dataset=dataset)
        chain = save_chain(store, pipeline, fold_artifacts={"0": own}, shared_artifacts={"1": shared})
        predict(store, pipeline, chain, dataset_name=dataset)
        sweeps.append((pipeline, chain, store.get_artifact_path(own)))
    kept = store.get_artifact_path(shared)
    first = store._delete_predictions_matching(dataset_name="corn")
    assert [first[f"deleted_{name}"] for name in ("predictions", "chains", "pipelines")] == [1, 1, 1]
    assert store.get_pipeline(sweeps[0][0]) is None
    assert kept.exists()  # the other pipeline still runs
    second = store._delete_predictions_matching(chain_id=sweeps[1][1], fold_id="0")
    assert [second[f"deleted_{name}"] for name in ("predictions", "chains", "pipelines")] == [1, 1, 1]
    assert first["deleted_artifacts"] + second["deleted_artifacts"] == 3
    assert not any(path.exists() for path in (kept, *(each[2] for each in sweeps)))
    assert store.list_runs().height == 2


def test_a_pipeline_that_runs_stays_while_it_holds_anything_and_after_a_block_that_fails(store: Store1x) -> None:
    sweep = begin_sweep(store)
    prediction = predict(store, sweep.pipeline, sweep.chain)
    with pytest.raises(ValueError, match="stop"), store.transaction():
        assert store._delete_predictions_matching(prediction_ids=[prediction])["deleted_pipelines"] == 1
        assert store.get_pipeline(sweep.pipeline) is None
        raise ValueError("stop")
    assert store.get_prediction(prediction) is not None
    empty = save_chain(store, sweep.pipeline)
    assert store._delete_predictions_matching(chain_id=sweep.chain)["deleted_pipelines"] == 0
    predict(store, sweep.pipeline, empty)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert (store.get_pipeline(sweep.pipeline) or {})["status"] == "completed"


@pytest.mark.parametrize("given", ["", " first ", "bad\0id", 7])
def test_an_id_that_nirs4all_would_refuse_is_refused(store: Store1x, given: Any) -> None:
    sweep = begin_sweep(store)
    with pytest.raises(ValueError, match="save_prediction.prediction_id must be a canonical non-empty string"):
        predict(store, sweep.pipeline, sweep.chain, prediction_id=given)
    assert store.query_predictions().is_empty()


@pytest.mark.parametrize("kind", [Store1x, Nirs4allStore])
def test_a_vacuum_says_nothing(tmp_path: Path, kind: type[Nirs4allStore]) -> None:
    with kind(tmp_path / "w") as opened:
        opened.vacuum()
        assert get_type_hints(kind.vacuum)["return"] is type(None)


# -- results of analyses ---------------------------------------------------------------------

INSERT = "INSERT INTO conformal_results (conformal_id, name, run_id, prediction_id, result_json) VALUES (?, ?, ?, ?, ?)"


def test_results_of_analyses_are_rows_that_go_with_what_they_are_of(store: Store1x) -> None:
    sweep = begin_sweep(store)
    prediction = predict(store, sweep.pipeline, sweep.chain)
    store.array_store.save_batch([{"prediction_id": prediction, "y_true": [1.0], "y_pred": [2.0]}])
    store._execute_with_retry(INSERT, ["c1", "first", sweep.run, prediction, '{"a": 1}'])
    store._execute_with_retry(INSERT, ["c2", "second", None, None, "{}"])
    with again(store) as later:
        rows = later._fetch_pl("SELECT * FROM conformal_results WHERE name LIKE 'FIRST' OR conformal_id = ?", ["c2"])
        assert sorted(rows["conformal_id"].to_list()) == ["c1", "c2"]
        assert set(rows["result_json"].to_list()) == {'{"a": 1}', "{}"}
        assert rows["created_at"].null_count() == 0
        there = [count(later, table) for table in ("runs", "pipelines", "chains", "predictions", "logs")]
        assert [later.delete_run(sweep.run, dry_run=dry) for dry in (True, False)] == [sum(there) + 1] * 2
        assert later._fetch_pl("SELECT conformal_id FROM conformal_results")["conformal_id"].to_list() == ["c2"]


def test_a_run_s_description_is_updated_after_it_was_made(store: Store1x) -> None:
    run = store.begin_run("sweep", {"cv": 5}, [{"name": "corn"}])
    project = store.create_project("grain")
    store._execute_with_retry("UPDATE runs SET config = ?, datasets = ? WHERE run_id = ?", ['{"cv": 3}', "[]", run])
    assert store._fetch_pl("UPDATE runs SET project_id = $2 WHERE run_id = $1", [run, project]).is_empty()
    found = store.get_run(run) or {}
    assert (found["config"], found["datasets"], found["project_id"]) == ({"cv": 3}, [], project)
    for refused in ("UPDATE runs SET status = 'completed' WHERE run_id = 'a'", "DELETE FROM runs", "DROP TABLE runs"):
        with pytest.raises(InvalidInputError):
            store._execute_with_retry(refused)
    with pytest.raises(ValueError, match="unexpected|Expecting"):
        store._execute_with_retry("UPDATE runs SET config = ? WHERE run_id = ?", ["{broken", run])


def test_the_arrays_of_a_store_are_one_object_that_keeps_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store1x(tmp_path / "w")
    arrays = store.array_store
    assert arrays is store.array_store is store._array_store
    monkeypatch.setattr(arrays, "save_batch", lambda records: 7)
    assert store.array_store.save_batch([]) == 7
    assert Store1x(tmp_path / "w").array_store.stats()["total_rows"] == 0  # of a store that nobody else has
    store.close()


@pytest.mark.parametrize("kind", [Store1x, Nirs4allStore])
def test_deleting_a_run_that_is_not_there_deletes_nothing(tmp_path: Path, kind: type[Nirs4allStore]) -> None:
    with kind(tmp_path / "w") as store:
        assert store.delete_run("nothing") == 0
        assert store.delete_run(store.begin_run("r", {}, [])) == 1


def test_settings_of_sqlite_are_told(store: Store1x) -> None:
    told = [store._ensure_open().execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "foreign_keys")]
    assert told == [(5,), (1,)]


def test_rows_have_names_and_places(store: Store1x) -> None:
    begin_sweep(store)
    connection = store._ensure_open()
    row = connection.execute("SELECT name, status FROM runs").fetchone()
    assert (row["name"], row[1], tuple(row), dict(row)["status"]) == (row[0], "running", (row[0], "running"), "running")
    assert [column["name"] for column in connection.execute("PRAGMA table_info(runs)").fetchall()][:2] == [
        "run_id",
        "name",
    ]
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 5
    with pytest.raises(InvalidInputError):
        connection.execute("DELETE FROM runs")


def test_the_plain_store_reads_what_this_one_wrote(store: Store1x) -> None:
    prediction = saved(store, y_true=np.array(["a", "b"]), y_pred=np.array(["b", "b"]), task_type="classification")
    store.close()
    with WorkspaceStore(store.workspace_path) as plain:
        arrays = plain.get_prediction_arrays(prediction) or {}
    np.testing.assert_array_equal(arrays["y_true"], [0, 1])
    np.testing.assert_array_equal(arrays["y_pred"], [1, 1])
