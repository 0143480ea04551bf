"""Pipeline configurations kept for reuse: templates in `library/<category>/<name>/` of a workspace.

A template is a folder of `pipeline.json` (the configuration), `metadata.json` (name, category,
description, tags, metrics, notes, times) and `README.md` for people; nirs4all reads and writes the
same folders. A template appears, is replaced and disappears by a rename, so no reader meets half of
one; where the system cannot exchange two folders at once (outside Linux) it is missing for an instant
while it is replaced. Drafts have names with a leading dot and are ignored. Names become folder
names as in nirs4all: lower case, spaces as underscores, characters that file systems refuse left out.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n4a_fast.durable.plain_files import copy_folder, read_text
from n4a_fast.durable.publish import new_folder, remove_folder, replaced_folder
from n4a_fast.engine.refusals import checked
from n4a_fast.errors import (
    InvalidInputError,
    NotFoundError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
    TemplateExistsError,
    TemplateMissingError,
    UnsafePathError,
)
from n4a_fast.store import WorkspaceStore
from n4a_fast.values import checks, jsontext
from n4a_fast.values.seals import sealed, unsealed

_PIPELINE, _METADATA, _README = "pipeline.json", "metadata.json", "README.md"
_TEXTS = ("name", "category", "description", "notes", "created_at", "modified_at")
_FORMS = {**dict.fromkeys(_TEXTS, (str, type(None))), "tags": (list, type(None)), "metrics": (dict, type(None))}
_REFUSED_BY_FILE_SYSTEMS = str.maketrans("", "", '<>:"/\\|?*')
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
_LONGEST_NAME = 200  # bytes; file systems take 255, and a draft needs some


class PipelineLibrary:
    """Templates of one workspace, found by name, category, tags and words."""

    def __init__(self, workspace_path: str | Path, store: WorkspaceStore | None = None) -> None:
        """`store` is where `copy_from_pipeline` looks; without it the workspace's own store is opened for that call."""
        self.workspace_path = checks.path(workspace_path, "workspace_path")
        self.library_path = self.workspace_path / "library"
        self._store = store

    @checked
    def save_template(
        self,
        pipeline_config: Any,
        name: str,
        category: str = "general",
        description: str = "",
        tags: list[str] | None = None,
        metrics: dict[str, float] | None = None,
        notes: str = "",
        overwrite: bool = False,
    ) -> Path:
        """Folder of the new template; with `overwrite` it replaces one of this name, whose creation time stays.

        Raises TemplateExistsError for a taken name, InvalidInputError for what cannot be a name or JSON.
        """
        target = self._folder(name, category)
        if target.exists() and not overwrite:
            raise TemplateExistsError(name, target)
        now = checks.now().isoformat()
        metadata = {
            "name": name,
            "category": category,
            "description": checks.text(description, "description"),
            "tags": _tags(tags),
            "metrics": _metrics(metrics),
            "notes": checks.text(notes, "notes"),
            "created_at": _created_at(target) or now,
            "modified_at": now,
            "version": "1.0",
        }
        pipeline = _json(_config(pipeline_config), "pipeline_config")
        files = {_PIPELINE: pipeline, _METADATA: _sealed(metadata, pipeline), _README: _readme(metadata)}
        with _published(target, name, overwrite) as draft:
            _write_files(draft, files)
        return target

    @checked
    def load_template(self, name: str, category: str | None = None) -> Any:
        """The pipeline configuration; without a category the name must be in one category only."""
        return _read_json(self._find(name, category) / _PIPELINE, name)

    @checked
    def get_template_metadata(self, name: str, category: str | None = None) -> dict[str, Any]:
        """Name, category, description, tags, metrics, notes and times of a template."""
        return _read_metadata(self._find(name, category) / _METADATA, name)

    @checked
    def list_templates(
        self, category: str | None = None, tags: list[str] | None = None, search: str | None = None
    ) -> list[dict[str, Any]]:
        """Metadata of the templates, by category and name.

        `tags` keeps those with at least one of these tags; `search` those with all of its words,
        in any case, in name, category, description, tags or notes. A template whose metadata
        cannot be read is left out with a warning that names it.
        """
        wanted, words = set(_tags(tags)), (search or "").casefold().split()
        found = []
        for folder in self._template_folders(category):
            metadata = _readable_metadata(folder)
            if (
                metadata is not None
                and (not wanted or wanted & set(metadata.get("tags") or ()))
                and _mentions(metadata, folder, words)
            ):
                found.append(metadata)
        return found

    def list_categories(self) -> list[str]:
        """Categories that hold a template, in order."""
        return sorted({folder.parent.name for folder in self._template_folders(None)})

    @checked
    def delete_template(self, name: str, category: str | None = None, *, dry_run: bool = False) -> None:
        """Remove a template; without a category the name must be in one category only. With `dry_run` only a name
        that cannot be removed is told.
        """
        folder = self._find(name, category)
        if not dry_run:
            remove_folder(folder)

    @checked
    def copy_from_pipeline(
        self,
        pipeline_id: str,
        name: str,
        category: str = "general",
        description: str = "",
        tags: list[str] | None = None,
        extract_metrics: bool = True,
    ) -> Path:
        """Folder of a template with the configuration of a stored pipeline, and with its best scores as metrics."""
        row = self._pipeline(checks.text(pipeline_id, "pipeline_id"))
        metrics = _scores(row) if extract_metrics else {}
        return self.save_template(row["expanded_config"], name, category, description, tags, metrics)

    @checked
    def export_template(self, name: str, export_path: str | Path, category: str | None = None) -> Path:
        """Copy a template to a folder of its own, which must be new or empty."""
        folder, target = self._find(name, category), checks.path(export_path, "export_path")
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise TemplateExistsError(name, target, "choose a new or an empty folder")
        with _published(target.absolute(), name) as draft:
            copy_folder(folder, draft)
        return target

    @checked
    def import_template(self, import_path: str | Path, category: str = "general", overwrite: bool = False) -> Path:
        """Folder of a template copied from outside under the name in its metadata; its category becomes `category`."""
        source = checks.path(import_path, "import_path")
        metadata = _read_metadata(source / _METADATA, source.name)
        _config(_read_json(source / _PIPELINE, source.name))
        name = metadata.get("name") or source.name
        target = self._folder(name, category)
        if target.exists() and not overwrite:
            raise TemplateExistsError(name, target)
        with _published(target, name, overwrite) as draft:
            copy_folder(source, draft)
            renamed = {**metadata, "name": name, "category": category}
            pipeline = (draft / _PIPELINE).read_text(encoding="utf-8")
            _write_files(draft, {_METADATA: _sealed(renamed, pipeline)})
        return target

    def _folder(self, name: str, category: str) -> Path:
        """Where the template of this name lies or would lie."""
        return self.library_path / _category_name(category, self.library_path) / _folder_name(name, self.library_path)

    def _find(self, name: str, category: str | None) -> Path:
        if category:
            folder = self._folder(name, category)
            if not folder.is_dir():
                raise TemplateMissingError(name, folder)
            return folder
        wanted = _folder_name(name, self.library_path)
        found = [folder for folder in self._category_folders() if (folder / wanted).is_dir()]
        if not found:
            raise TemplateMissingError(name, self.library_path / "*" / wanted)
        if len(found) > 1:
            raise InvalidInputError(
                f"template {name!r} is in the categories {', '.join(folder.name for folder in found)}; give the"
                " category"
            )
        return found[0] / wanted

    def _category_folders(self) -> list[Path]:
        return _visible_folders(self.library_path)

    def _template_folders(self, category: str | None) -> Iterator[Path]:
        """Folders with metadata, by category and name."""
        folders = (
            [self.library_path / _category_name(category, self.library_path)] if category else self._category_folders()
        )
        return (folder for parent in folders for folder in _visible_folders(parent) if (folder / _METADATA).is_file())

    def _pipeline(self, pipeline_id: str) -> dict[str, Any]:
        if self._store is not None:
            row = self._store.get_pipeline(pipeline_id)
        else:
            with WorkspaceStore.open_readonly(self.workspace_path) as store:
                row = store.get_pipeline(pipeline_id)
        if row is None:
            raise NotFoundError("pipeline", pipeline_id)
        return row


def _folder_name(name: str, root: Path) -> str:
    """The folder of a template, by the rule that nirs4all applies to names; UnsafePathError for one that climbs."""
    checks.text(name, "name")
    if {".", ".."} & set(name.replace("\\", "/").split("/")):
        raise UnsafePathError(name, root)
    return _one_folder(name.replace(" ", "_").translate(_REFUSED_BY_FILE_SYSTEMS).lower(), name, "name")


def _category_name(category: str, root: Path) -> str:
    """The folder of a category, which is its name as it stands."""
    checks.text(category, "category")
    if category in (".", "..") or "/" in category or "\\" in category:
        raise UnsafePathError(category, root)
    return _one_folder(category, category, "category")


def _one_folder(folder: str, given: str, argument: str) -> str:
    """`folder` if it can be a visible folder everywhere."""
    if (
        not folder.strip("_ ")
        or folder.startswith(".")
        or not folder.isprintable()
        or folder != folder.translate(_REFUSED_BY_FILE_SYSTEMS)
        or folder.partition(".")[0].rstrip().upper() in _DEVICES
        or len(folder.encode()) > _LONGEST_NAME
    ):
        rule = f"use letters and digits, no leading dot, no device of Windows, at most {_LONGEST_NAME} bytes"
        raise InvalidInputError(f"{argument} {given!r} cannot be the name of a folder; {rule}")
    return folder


def _visible_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(folder for folder in parent.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _config(value: Any) -> Any:
    if not isinstance(value, Mapping | list | tuple) or not value:
        raise InvalidInputError(
            f"pipeline_config must be a dict or a list of steps and not empty, got {type(value).__name__}"
        )
    return value


def _tags(tags: Iterable[str] | None) -> list[str]:
    return [] if tags is None else checks.texts(tags, "tags")


def _metrics(metrics: Mapping[str, Any] | None) -> dict[str, float | None]:
    return {
        checks.text(name, "a metric's name"): checks.real(value, f"metric {name}")
        for name, value in checks.mapping(metrics, "metrics").items()
    }


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """A pipeline's best scores under names like `val_rmse`; those it has not are left out."""
    metric = row.get("metric") or "score"
    scores = {f"val_{metric}": row.get("best_val"), f"test_{metric}": row.get("best_test")}
    return {name: value for name, value in scores.items() if value is not None}


def _json(value: Any, name: str) -> str:
    """Indented JSON text, by the rules of the store's JSON columns."""
    return json.dumps(jsontext.decode(jsontext.encode(value, name)), indent=2, ensure_ascii=False) + "\n"


def _sealed(metadata: Mapping[str, Any], pipeline: str) -> str:
    """The metadata as JSON text, with a checksum by which `verify` knows both files again."""
    return _json(sealed(jsontext.decode(jsontext.encode(metadata, "metadata")), pipeline), "metadata")


def _read_json(path: Path, name: str) -> Any:
    try:
        return jsontext.decode(read_text(path))
    except FileNotFoundError as error:
        raise TemplateMissingError(name, path) from error
    except UnsafePathError:
        raise
    except OSError as error:
        raise StoreUnavailableError(path, str(error.strerror)) from error
    except ValueError as error:
        raise StoreFormatError(
            f"{path} is not JSON ({error}); restore the file from a copy, or delete the template"
        ) from error


def _read_metadata(path: Path, name: str) -> dict[str, Any]:
    found = _read_json(path, name)
    wrong = "JSON object" if not isinstance(found, dict) else _of_another_form(found)
    if wrong:
        raise StoreFormatError(f"{path} holds no {wrong}; restore the file from a copy, or delete the template")
    return unsealed(found)


def _of_another_form(metadata: Mapping[str, Any]) -> str:
    """Which of a template's metadata is not what it must be; empty for none."""
    wrong = [
        f"{name} as templates have it" for name, kinds in _FORMS.items() if not isinstance(metadata.get(name), kinds)
    ]
    if not wrong and not all(isinstance(tag, str) for tag in metadata.get("tags") or ()):
        wrong = ["tags that are texts"]
    return wrong[0] if wrong else ""


def _readable_metadata(folder: Path) -> dict[str, Any] | None:
    """The metadata, or None with a warning: one damaged template must not hide the others."""
    try:
        return _read_metadata(folder / _METADATA, folder.name)
    except StoreError as error:
        warnings.warn(f"a template is left out of the list: {error}", stacklevel=3)
        return None


def _created_at(folder: Path) -> str | None:
    """When the template that is to be replaced was made, if it is there and says so."""
    metadata = _readable_metadata(folder) if (folder / _METADATA).is_file() else None
    created = (metadata or {}).get("created_at")
    return created if isinstance(created, str) else None


def _mentions(metadata: Mapping[str, Any], folder: Path, words: list[str]) -> bool:
    texts = [metadata.get(key) for key in ("name", "description", "notes")]
    text = " ".join(
        str(item) for item in [*texts, folder.parent.name, *(metadata.get("tags") or ())] if item
    ).casefold()
    return all(word in text for word in words)


@contextmanager
def _published(target: Path, name: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes a template, whole, when the block ends well."""
    try:
        with (replaced_folder if overwrite else new_folder)(target) as draft:
            yield draft
    except (InvalidInputError, StoreUnavailableError) as error:
        if not overwrite and target.exists():  # another process was first
            raise TemplateExistsError(name, target) from error
        raise


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())


def _readme(metadata: Mapping[str, Any]) -> str:
    """What a person sees who opens the folder."""
    parts = [f"# {metadata['name']}", metadata["description"], ", ".join(f"`{tag}`" for tag in metadata["tags"])]
    if metadata["metrics"]:
        parts.append(
            "| Metric | Value |\n|---|---|\n"
            + "\n".join(f"| {name} | {value} |" for name, value in metadata["metrics"].items())
        )
    call = f"PipelineLibrary(workspace).load_template({metadata['name']!r}, {metadata['category']!r})"
    parts += [
        f"```python\nfrom n4a_fast import PipelineLibrary\n\npipeline = {call}\n```",
        metadata["notes"],
        f"Saved {metadata['modified_at']} (UTC).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
