"""What results show of themselves in a prompt: a few lines of their own, without an error, a wait, or a change."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import NEW, unpacked
from helpers import begin_pipeline, child, finish, predict, read_line, save_chain
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.integrations.workspaces import convert

X = np.random.default_rng(0).normal(size=(12, 4))
NAME = "<b>\x1b[31mcorn\r\n</b>"
PATIENT = 10_000.0  # seconds: whoever waits for a store that is busy does not come back in time
# what calls give that is no result of ours, or that a test of its own shows
OTHERS = {"Any", "None", "Path", "Self", "Callable", "Iterator", "AbstractContextManager", "R", "P", "Concatenate"}
OTHERS |= {"Workspace", "Shard", "DataFrame", "ArtifactSettings"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, dict[str, Any]]]:
    """A store, and what its calls give, by the name of its type."""
    place = tmp_path_factory.mktemp("shown")
    store = WorkspaceStore(place / "w", lock_timeout=PATIENT)
    run = store.begin_run(NAME, {}, [], expected=3)
    for number in range(7):
        store.fail_pipeline(begin_pipeline(store, run, f"{NAME} {number}"), f"SVD\n{NAME} {number}")
    chain = store.save_cross_validation(Ridge(), X, X.sum(axis=1), cv=2, run=run, name=NAME, dataset=NAME)
    for number in range(9):  # each is missing its file
        missing = store.save_artifact(np.full(4, number), NAME, "model", "joblib")
        store.get_artifact_path(missing).unlink()
    model = store.sql("SELECT artifact_id FROM artifacts WHERE operator_class LIKE '%Ridge'")["artifact_id"][0]
    bundle = store.export_chain(chain.chain_id, place / "chain.n4a")
    board = store.leaderboard()
    results = [
        store, chain, store.run(), board, board.boards[0], store.load_arrays(), store.progress(), store.stats(),
        store.plot("folds"), store.replay_plan(chain.chain_id), store.describe_chain(chain.chain_id),
        store.describe_artifact(model), store.verify(), store.verify_artifacts(), inspect_bundle(bundle),
        store.report(place / "r.html", charts=False), convert(unpacked(NEW, place), place / "converted"),
    ]  # fmt: skip
    with WorkspaceStore(place / "other") as other:
        shared = other.save_cross_validation(Ridge(), X, X.sum(axis=1), cv=2, dataset=NAME)
        results += [other.backup(place / "backup"), other.vacuum()]
    results.append(store.merge(place / "other"))
    assert shared.chain_id != chain.chain_id
    yield store, {type(each).__name__: each for each in results}
    store.close()


def test_all_results_of_calls_are_here(shown: tuple[WorkspaceStore, dict[str, Any]]) -> None:
    public = [method for name, method in vars(WorkspaceStore).items() if name[0] != "_" and inspect.isfunction(method)]
    given = " ".join(str(inspect.signature(method).return_annotation) for method in public)
    assert set(re.findall(r"\b[A-Z]\w*", given)) - OTHERS - {"WorkspaceStore"} <= {*shown[1]}


def test_each_has_a_few_lines_of_its_own(shown: tuple[WorkspaceStore, dict[str, Any]]) -> None:
    for name, result in shown[1].items():
        made_by = inspect.unwrap(type(result).__repr__).__code__.co_filename
        assert "n4a_fast" in made_by, f"{name} has no text of its own"
        text = repr(result)
        lines = text.split("\n")
        assert 1 <= len(lines) <= 8, text
        assert all(line.isprintable() and len(line) < 400 for line in lines), text
        assert " object at 0x" not in text


def test_what_notebooks_show_is_escaped_and_short(shown: tuple[WorkspaceStore, dict[str, Any]]) -> None:
    with_html = {name: each._repr_html_() for name, each in shown[1].items() if hasattr(each, "_repr_html_")}
    assert {"WorkspaceStore", "Run", "Chain", "Leaderboard", "LoadedArrays", "PlanReport"} <= {*with_html}
    for name, html in with_html.items():
        assert html, name
        assert "<b>" not in html.replace("<p><b>", ""), name
        assert "\x1b" not in html, name
        assert len(html) < 20_000, name


def test_texts_say_what_is_there(shown: tuple[WorkspaceStore, dict[str, Any]]) -> None:
    for name, expected in {
        "WorkspaceStore": r"\('.*w'\): 2 runs, 9 pipelines, 2 chains, 10 predictions; .* MB; best [0-9.]+ rmse \(",
        "Run": r"1 done, 7 failed, 0 running; best .*\n  failed: .*SVD",
        "Chain": r"chain .*: Ridge\n  val by fold: 0 [0-9.]+, 1 [0-9.]+",
        "LoadedArrays": r"5 predictions; y_true 6 to 12, y_pred 6 to 12",
        "VerificationReport": r"has 9 findings; looked at .*\n  missing .*\n(.*\n){4}  and 4 more",
        "VerifyReport": r"9 damaged\n(.*\n){5}  and 4 more",
        "MergeReport": r"1 workspace: 5 predictions, all of them new\n  runs: 1 of 1 new",
    }.items():
        assert re.search(expected, repr(shown[1][name])), repr(shown[1][name])


# -- not to be had at once ---------------------------------------------------------------------

KEEPER = """
import sys
from helpers import *
with WorkspaceStore(sys.argv[1], lock_timeout=60) as store, store.transaction():
    store.list_runs()
    print("kept", flush=True)
    sys.stdin.readline()
"""


def views_of(store: WorkspaceStore) -> list[Any]:
    """Whatever asks the store when it is shown."""
    run = store.begin_run("nightly", {}, [])
    pipeline = begin_pipeline(store, run)
    chain = save_chain(store, pipeline)
    predict(store, pipeline, chain)
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return [store, store.run(), store.chain(), store.leaderboard()]


def all_shown(views: list[Any]) -> list[str]:
    return [text or "" for each in views for text in (repr(each), each._repr_html_())]


@pytest.mark.parametrize("keeper", ["process", "thread"])
def test_nobody_waits_for_a_store_that_is_busy(tmp_path: Path, keeper: str) -> None:
    store = WorkspaceStore(tmp_path / "w", lock_timeout=PATIENT)
    views, keep = views_of(store), kept_by_process if keeper == "process" else kept_by_thread
    end = keep(store)
    texts = all_shown(views)
    end()
    assert texts[0].endswith(": busy")
    assert "rmse" in texts[-2]
    assert not any("val by fold" in text or "1 done" in text for text in texts)
    assert all("1 done" in text for text in all_shown(views[1:2]))
    store.close()
    assert repr(store) == f"WorkspaceStore({str(tmp_path / 'w')!r}): closed"


def kept_by_process(store: WorkspaceStore) -> Callable[[], object]:
    process = child(KEEPER, store.workspace_path)
    assert read_line(process) == "kept"
    return lambda: finish(process)


def kept_by_thread(store: WorkspaceStore) -> Callable[[], object]:
    inside, leave = threading.Event(), threading.Event()

    def keep() -> None:
        with store.transaction():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    inside.wait()

    def end() -> None:
        leave.set()
        thread.join()

    return end


@pytest.mark.long
def test_nothing_is_written_for_what_is_shown(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "w", flush_interval=None) as store:
        views = views_of(store)
        pipeline = begin_pipeline(store, views[1].run_id, "not ranked")
        predict(store, pipeline, save_chain(store, pipeline))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        store.list_runs()  # a read puts it in the tables
        begin_pipeline(store, views[1].run_id, "in the log")
        store.flush()
        begin_pipeline(store, views[1].run_id, "in memory")

        def state() -> tuple[Any, ...]:
            stale = store._open().database.rows_undrained("SELECT count(*) FROM stale_chains")[0][0]
            return store.stats(), stale

        before = state()
        assert (before[0].pending, before[0].unflushed, before[1]) == (1, 1, 1)
        assert all(all_shown(views))
        assert "2 done" in repr(views[1])
        assert state() == before
