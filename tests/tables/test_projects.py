"""Projects group runs; deleting one keeps them."""

from __future__ import annotations

import pytest
from helpers import begin_pipeline

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError


def test_a_project_is_stored_updated_and_found_by_name(store: WorkspaceStore) -> None:
    first = store.create_project("grain", "all cereals")
    second = store.create_project("soil", color="#ff0000")
    found = store.get_project(first)
    assert found is not None
    assert (found["name"], found["description"], found["color"], found["project_id"]) == (
        "grain",
        "all cereals",
        "#14b8a6",
        first,
    )
    assert store.list_projects()["project_id"].to_list() == [second, first]
    store.update_project(first, "wheat", color="#00ff00")
    assert store.get_project_by_name("grain") is None
    changed = store.get_project_by_name("wheat")
    assert changed is not None
    assert (changed["project_id"], changed["description"], changed["color"]) == (first, "", "#00ff00")
    assert changed["created_at"] == found["created_at"] <= changed["updated_at"]


def test_a_name_gives_the_project_that_has_it_or_a_new_one(store: WorkspaceStore) -> None:
    first = store.get_or_create_project("grain")
    assert store.get_or_create_project("grain") == first
    assert store.get_or_create_project("soil") != first
    assert len(store.list_projects()) == 2


def test_runs_belong_to_a_project_until_it_is_deleted(store: WorkspaceStore) -> None:
    project = store.create_project("grain")
    inside, outside = store.begin_run("a", {}, []), store.begin_run("b", {}, [])
    store.set_run_project(inside, project)
    store.complete_run(inside, {})
    projects = {row["run_id"]: row["project_id"] for row in store.list_runs().to_dicts()}
    assert projects == {inside: project, outside: None}
    store.set_run_project(outside, project)
    store.delete_project(project, dry_run=True)
    assert store.get_project(project) is not None
    assert store.list_runs()["project_id"].to_list() == [project, project]
    store.delete_project(project)
    assert store.get_project(project) is None
    assert store.list_runs()["project_id"].to_list() == [None, None]


def test_a_run_can_leave_its_project(store: WorkspaceStore) -> None:
    run = store.begin_run("a", {}, [])
    store.set_run_project(run, store.create_project("grain"))
    store.set_run_project(run, None)
    found = store.get_run(run)
    assert found is not None
    assert found["project_id"] is None


def test_a_run_is_not_put_into_an_unknown_project(store: WorkspaceStore) -> None:
    with pytest.raises(NotFoundError, match="project 'unknown'"):
        store.set_run_project(store.begin_run("a", {}, []), "unknown")
    with pytest.raises(InvalidInputError, match="name must be text"):
        store.create_project(5)  # type: ignore[arg-type]


def test_a_pipeline_keeps_the_template_it_was_expanded_from(store: WorkspaceStore) -> None:
    run = store.begin_run("a", {}, [])
    pipeline = store.begin_pipeline(run, "p", ["SNV"], [], "corn", "h", {"_or_": ["SNV", "MSC"]})
    plain = begin_pipeline(store, run)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    templates = [
        found["original_template"] for found in (store.get_pipeline(pipeline), store.get_pipeline(plain)) if found
    ]
    assert templates == [{"_or_": ["SNV", "MSC"]}, None]
