"""Templates in real folders: saved, found, replaced, moved between workspaces, and refused."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import IS_ROOT, Sweep, begin_pipeline, child, kill, read_line
from sklearn.preprocessing import StandardScaler

from n4a_fast import PipelineLibrary, WorkspaceStore
from n4a_fast.errors import (
    InvalidInputError,
    NotFoundError,
    StoreFormatError,
    StoreUnavailableError,
    TemplateExistsError,
    TemplateMissingError,
    UnsafePathError,
)

CONFIG = {"steps": ["SNV", {"class": "PLSRegression", "params": {"n_components": 3}}]}


@pytest.fixture
def library(tmp_path: Path) -> PipelineLibrary:
    return PipelineLibrary(tmp_path / "workspace")


def hidden(library: PipelineLibrary) -> list[Path]:
    return list(library.library_path.rglob(".*"))


def write_template(folder: Path, **metadata: Any) -> Path:
    """A template as another program leaves it."""
    folder.mkdir(parents=True)
    (folder / "pipeline.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2))
    return folder


def test_a_template_comes_back_as_it_was_saved(library: PipelineLibrary) -> None:
    folder = library.save_template(
        CONFIG, "My PLS", "modeling", "three components", ["pls", "nir"], {"rmse": 0.25}, "dry samples only"
    )
    assert folder == library.library_path / "modeling" / "my_pls"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "metadata.json", "pipeline.json"]
    assert library.load_template("My PLS") == library.load_template("my_pls", "modeling") == CONFIG
    metadata = library.get_template_metadata("My PLS")
    assert metadata["created_at"] == metadata["modified_at"]
    assert {
        key: metadata[key] for key in ("name", "category", "description", "tags", "metrics", "notes", "version")
    } == {
        "name": "My PLS",
        "category": "modeling",
        "description": "three components",
        "tags": ["pls", "nir"],
        "metrics": {"rmse": 0.25},
        "notes": "dry samples only",
        "version": "1.0",
    }
    readme = (folder / "README.md").read_text()
    shown = (
        "# My PLS",
        "three components",
        "`pls`",
        "| rmse | 0.25 |",
        "dry samples only",
        "load_template('My PLS', 'modeling')",
    )
    assert [part for part in shown if part not in readme] == []
    assert hidden(library) == []


def test_numpy_values_and_estimators_become_json(library: PipelineLibrary) -> None:
    folder = library.save_template(
        [StandardScaler(), {"n": np.int64(3)}], "scaled", metrics={"r2": np.float32(0.5), "bias": float("nan")}
    )
    scaler, numbers = json.loads((folder / "pipeline.json").read_text())
    assert (scaler["class"].endswith("StandardScaler"), numbers) == (True, {"n": 3})
    metrics = library.get_template_metadata("scaled")["metrics"]
    assert metrics["r2"] == 0.5
    assert np.isnan(metrics["bias"])


def test_templates_are_listed_by_category_tag_and_words(library: PipelineLibrary) -> None:
    library.save_template(CONFIG, "b", "modeling", "Dry corn", ["pls", "corn"])
    library.save_template(CONFIG, "a", "modeling", "wet corn", ["ridge"])
    library.save_template(CONFIG, "c", "preprocessing", notes="for Barley")

    def names(**filters: Any) -> list[str]:
        return [metadata["name"] for metadata in library.list_templates(**filters)]

    assert names() == ["a", "b", "c"]
    assert names(category="modeling") == ["a", "b"]
    assert names(category="empty") == []
    assert names(tags=["pls", "ridge"]) == ["a", "b"]
    assert names(category="modeling", tags=["corn"]) == ["b"]
    assert names(search="CORN dry") == ["b"]
    assert names(search="barley") == names(search="preprocessing") == ["c"]
    assert names(search="wheat") == []
    assert library.list_categories() == ["modeling", "preprocessing"]


def test_a_library_that_was_never_written_is_empty(library: PipelineLibrary) -> None:
    assert library.list_templates() == library.list_categories() == []
    with pytest.raises(TemplateMissingError, match="no template 'pls'"):
        library.load_template("pls")
    assert not library.workspace_path.exists()


def test_a_taken_name_is_refused_and_overwrite_replaces_all_but_the_creation_time(library: PipelineLibrary) -> None:
    folder = library.save_template(CONFIG, "pls", description="old")
    (folder / "extra.txt").write_text("of the old one")
    before = library.get_template_metadata("pls")
    with pytest.raises(TemplateExistsError, match="overwrite=True"):
        library.save_template({"steps": ["new"]}, "PLS")
    assert library.load_template("pls") == CONFIG
    library.save_template({"steps": ["new"]}, "pls", overwrite=True)
    after = library.get_template_metadata("pls")
    assert (library.load_template("pls"), after["description"], after["created_at"]) == (
        {"steps": ["new"]},
        "",
        before["created_at"],
    )
    assert not (folder / "extra.txt").exists()
    assert hidden(library) == []


def test_a_deleted_template_is_gone_and_its_name_is_free(library: PipelineLibrary) -> None:
    library.save_template(CONFIG, "pls")
    library.delete_template("pls", dry_run=True)
    assert library.list_templates()
    library.delete_template("pls")
    assert library.list_templates() == hidden(library) == []
    with pytest.raises(FileNotFoundError, match="no template 'pls'"):
        library.delete_template("pls")
    library.save_template(CONFIG, "pls")


def test_a_name_in_two_categories_needs_the_category(library: PipelineLibrary) -> None:
    library.save_template({"in": "a"}, "pls", "a")
    library.save_template({"in": "b"}, "pls", "b")
    with pytest.raises(InvalidInputError, match="in the categories a, b"):
        library.delete_template("pls")
    assert library.load_template("pls", "b") == {"in": "b"}
    with pytest.raises(TemplateMissingError):
        library.load_template("pls", "c")


@pytest.mark.parametrize("name", ["..", ".", "../pls", "a/../../pls", "..\\pls", "/etc/../pls"])
def test_names_that_climb_are_refused(library: PipelineLibrary, name: str) -> None:
    for call in (
        lambda: library.save_template(CONFIG, name),
        lambda: library.load_template(name),
        lambda: library.delete_template(name, "general"),
    ):
        with pytest.raises(UnsafePathError):
            call()
    assert not library.library_path.exists()


@pytest.mark.parametrize("name", ["", " ", "???", ".hidden", "a\nb", "a\0b", "x" * 300, None, 3])
def test_names_that_are_no_folder_are_refused(library: PipelineLibrary, name: Any) -> None:
    with pytest.raises(InvalidInputError):
        library.save_template(CONFIG, name)
    assert not library.library_path.exists()


@pytest.mark.parametrize("category", ["..", "../..", "a/b", "/tmp", "a\\b", "", ".draft-1", "a\0"])
def test_categories_that_are_no_folder_of_the_library_are_refused(library: PipelineLibrary, category: str) -> None:
    with pytest.raises(InvalidInputError):
        library.save_template(CONFIG, "pls", category)
    assert not library.library_path.exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"pipeline_config": {}},
        {"pipeline_config": "SNV"},
        {"pipeline_config": {"a": object()}},
        {"tags": "pls"},
        {"tags": [1]},
        {"metrics": {"rmse": "low"}},
        {"metrics": [1]},
        {"description": None},
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    library: PipelineLibrary, bad: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        library.save_template(**{"pipeline_config": CONFIG, "name": "pls", **bad})
    assert not library.library_path.exists()


def test_a_stored_pipeline_becomes_a_template_with_its_scores(store: WorkspaceStore, sweep: Sweep) -> None:
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 12)
    for library in (PipelineLibrary(store.workspace_path, store), PipelineLibrary(store.workspace_path)):
        library.copy_from_pipeline(sweep.pipeline, "best", tags=["corn"], category="modeling")
        assert library.load_template("best") == {"steps": ["SNV", "PLS"]}
        metadata = library.get_template_metadata("best")
        assert (metadata["metrics"], metadata["tags"]) == ({"val_rmse": 0.1, "test_rmse": 0.2}, ["corn"])
        library.delete_template("best")


def test_a_pipeline_without_scores_has_no_metrics_and_an_unknown_one_is_named(
    store: WorkspaceStore, sweep: Sweep
) -> None:
    library = PipelineLibrary(store.workspace_path, store)
    library.copy_from_pipeline(begin_pipeline(store, sweep.run), "open")
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 12)
    library.copy_from_pipeline(sweep.pipeline, "plain", extract_metrics=False)
    assert [metadata["metrics"] for metadata in library.list_templates()] == [{}, {}]
    with pytest.raises(NotFoundError, match="no pipeline 'p9'"):
        library.copy_from_pipeline("p9", "other")


def test_an_exported_template_is_imported_elsewhere(library: PipelineLibrary, tmp_path: Path) -> None:
    library.save_template(CONFIG, "My PLS", "modeling", tags=["pls"])
    exported = library.export_template("My PLS", tmp_path / "out" / "pls")
    other = PipelineLibrary(tmp_path / "other")
    assert other.import_template(exported, "received") == other.library_path / "received" / "my_pls"
    assert other.load_template("My PLS") == CONFIG
    assert other.get_template_metadata("My PLS") == {**library.get_template_metadata("My PLS"), "category": "received"}
    with pytest.raises(FileExistsError):
        other.import_template(exported, "received")
    other.import_template(exported, "received", overwrite=True)
    assert [path.name for path in exported.parent.iterdir()] == ["pls"]


def test_export_fills_an_empty_folder_and_leaves_a_full_one_alone(library: PipelineLibrary, tmp_path: Path) -> None:
    library.save_template(CONFIG, "pls")
    target = tmp_path / "target"
    target.mkdir()
    library.export_template("pls", target)
    assert len(list(target.iterdir())) == 3
    with pytest.raises(TemplateExistsError, match="empty folder"):
        library.export_template("pls", target)


def test_folders_that_nirs4all_wrote_load(library: PipelineLibrary, tmp_path: Path) -> None:
    facts = {
        "name": "PLS: v2",
        "category": "modeling",
        "description": "",
        "tags": ["a"],
        "metrics": {"r2": 0.9},
        "created_at": "2026-01-05T10:00:00.1",
    }
    write_template(library.library_path / "modeling" / "pls_v2", **facts)
    (library.library_path / "notes.txt").write_text("not a category")
    (library.library_path / "modeling" / "empty").mkdir()
    assert library.load_template("PLS: v2") == CONFIG
    assert library.list_templates(tags=["a"]) == [facts]
    outside = write_template(tmp_path / "Some Folder", tags=[])
    assert library.import_template(outside).name == "some_folder"
    assert library.get_template_metadata("Some Folder")["name"] == "Some Folder"


def test_an_import_without_its_files_is_refused(library: PipelineLibrary, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metadata\.json"):
        library.import_template(tmp_path / "nothing")
    folder = write_template(tmp_path / "t", name="t")
    (folder / "pipeline.json").unlink()
    with pytest.raises(TemplateMissingError, match=r"pipeline\.json"):
        library.import_template(folder)
    (folder / "pipeline.json").write_text("{")
    with pytest.raises(StoreFormatError, match="is not JSON"):
        library.import_template(folder)
    assert not library.library_path.exists()


def test_an_import_takes_no_links_and_no_climbing_name(library: PipelineLibrary, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    linked = write_template(tmp_path / "linked", name="linked")
    (linked / "README.md").symlink_to(secret)
    climbing = write_template(tmp_path / "climbing", name="../../climbing")
    for folder in (linked, climbing):
        with pytest.raises(UnsafePathError):
            library.import_template(folder)
    assert library.list_templates() == hidden(library) == []


def test_damaged_metadata_hides_only_its_own_template_and_is_named(library: PipelineLibrary) -> None:
    damaged = library.save_template(CONFIG, "damaged") / "metadata.json"
    library.save_template(CONFIG, "whole")
    damaged.write_text("[1]")
    with pytest.warns(UserWarning, match="damaged"):
        assert [metadata["name"] for metadata in library.list_templates()] == ["whole"]
    with pytest.raises(StoreFormatError, match="holds no JSON object"):
        library.get_template_metadata("damaged")
    damaged.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreFormatError, match="is not JSON"):
        library.get_template_metadata("damaged")
    assert library.load_template("damaged") == CONFIG


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_folder_that_refuses_writing_is_named(library: PipelineLibrary) -> None:
    library.save_template(CONFIG, "pls")
    library.library_path.chmod(0o500)
    try:
        with pytest.raises(StoreUnavailableError, match="cannot be used"):
            library.save_template(CONFIG, "other")
    finally:
        library.library_path.chmod(0o700)
    assert library.load_template("pls") == CONFIG


def test_a_library_where_a_file_stands_is_named(library: PipelineLibrary) -> None:
    library.workspace_path.mkdir()
    library.library_path.write_text("a file")
    with pytest.raises(StoreUnavailableError, match="library"):
        library.save_template(CONFIG, "pls")


def test_of_many_writers_of_one_name_exactly_one_wins(library: PipelineLibrary) -> None:
    barrier = threading.Barrier(8)

    def save(number: int) -> int | None:
        barrier.wait()
        try:
            library.save_template({"writer": number}, "pls")
        except TemplateExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(save, range(8)) if number is not None]
    assert [library.load_template("pls")] == [{"writer": number} for number in winners]
    assert hidden(library) == []


REPLACING = """
import sys
from n4a_fast import PipelineLibrary
library = PipelineLibrary(sys.argv[1])
for number in range(10**9):
    library.save_template({"step": number}, "pls", notes=str(number), overwrite=True)
    if number == 3:
        print("begun", flush=True)
"""


@pytest.mark.not_on("macos", "windows", reason="two folders change places in three renames")
def test_a_template_that_is_being_replaced_is_always_there_and_whole(library: PipelineLibrary) -> None:
    folder = library.library_path / "general" / "pls"
    for _ in range(3):
        writer = child(REPLACING, library.workspace_path)
        assert read_line(writer) == "begun"
        for _ in range(300):
            assert library.load_template("pls")["step"] >= 0
        kill(writer)
        step = library.load_template("pls")["step"]
        assert (library.get_template_metadata("pls")["notes"], (folder / "README.md").is_file()) == (str(step), True)
    assert [found["name"] for found in library.list_templates()] == ["pls"]
