"""Rows that two processes change, each other columns of them, and neither knows of the other's change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from two_processes import Two, two_processes

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with two_processes(tmp_path_factory.mktemp("two")) as both:
        yield both


def begun(two: Two, moment: str) -> str:
    """A run that is in the tables, or in the log and the memory of this process."""
    run = two.store.begin_run("r", {}, [])
    two.store.flush()
    if moment == "stored":
        two.store.list_runs()
    return run


def row(two: Two, run: str) -> tuple[object, ...]:
    found = two.store.get_run(run)
    assert found is not None
    return found["status"], found["summary"], found["error"], found["project_id"]


@pytest.mark.parametrize("moment", ["logged", "stored"])
def test_the_end_of_a_run_keeps_the_project_that_another_process_gave_it(two: Two, moment: str) -> None:
    run, project = begun(two, moment), two.store.create_project(f"of {moment}")
    two.store.flush()
    two.elsewhere("set_run_project", run, project)
    two.elsewhere("flush")
    two.store.complete_run(run, {"best": 0.5})
    assert row(two, run) == ("completed", {"best": 0.5}, None, project)


@pytest.mark.parametrize("moment", ["logged", "stored"])
def test_a_project_does_not_set_a_run_that_another_process_has_ended_running_again(two: Two, moment: str) -> None:
    run, project = begun(two, moment), two.store.create_project(f"later, {moment}")
    two.elsewhere("fail_run", run, "stopped elsewhere")
    two.store.set_run_project(run, project)
    two.store.flush()
    assert row(two, run) == ("failed", None, "stopped elsewhere", project)


def test_changes_that_wait_in_two_logs_are_put_together(two: Two) -> None:
    run, project = begun(two, "stored"), two.store.create_project("both")
    two.store.list_runs()
    two.store.set_run_project(run, project)
    two.elsewhere("fail_run", run, "elsewhere")  # which waits in its log, as this one's change does
    two.store.flush()
    assert row(two, run) == ("failed", None, "elsewhere", project)


def test_a_change_of_a_run_that_is_gone_makes_no_run(two: Two) -> None:
    run = begun(two, "logged")
    two.elsewhere("delete_run", run)
    with suppress(NotFoundError):  # where this process has learnt of it
        two.store.complete_run(run, {})
    assert two.store.get_run(run) is None


def test_a_project_keeps_what_it_is_called_by_the_last_to_say_so(store: WorkspaceStore) -> None:
    project = store.create_project("wheat", "a", "red")
    store.flush()
    store.list_projects()
    store.update_project(project, "barley", "b", "blue")
    with store.transaction():
        store.update_project(project, "rye", "c", "green")
    found = store.get_project(project)
    assert found is not None
    assert (found["name"], found["description"], found["color"]) == ("rye", "c", "green")
    assert found["created_at"] is not None


def test_a_block_that_is_given_up_leaves_a_changed_run_as_it_was(store: WorkspaceStore) -> None:
    run, project = store.begin_run("r", {}, []), store.create_project("p")
    store.list_runs()
    store.set_run_project(run, project)
    with pytest.raises(KeyError), store.transaction():
        store.complete_run(run, {})
        raise KeyError
    found = store.get_run(run)
    assert found is not None
    assert (found["status"], found["project_id"]) == ("running", project)
