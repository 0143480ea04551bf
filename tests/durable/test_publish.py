"""Files and folders appear whole or not at all, and what killed processes left goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import child, kill, read_line

from n4a_fast import platform
from n4a_fast.durable.publish import new_file, new_folder, remove_folder, replaced_folder
from n4a_fast.errors import InvalidInputError, StoreUnavailableError

MAKE = """
import sys
from pathlib import Path
from n4a_fast.durable.publish import new_folder
with new_folder(Path(sys.argv[1])) as draft:
    (draft / "half").write_text("of it"); print(draft); input()
"""


def fill(draft: Path, text: str) -> None:
    (draft / "content").write_text(text)


def content(folder: Path) -> str:
    return (folder / "content").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    for publish in (new_file, new_folder, replaced_folder):
        with pytest.raises(ZeroDivisionError), publish(tmp_path / "new") as draft:
            (draft / "content" if draft.is_dir() else draft).write_text("half")
            raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_folder_takes_the_place_of_another_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replaced_folder(tmp_path / "place") as draft:
            fill(draft, text)
    assert content(tmp_path / "place") == "new"
    with replaced_folder(tmp_path / "place", tmp_path / "kept") as draft:
        fill(draft, "newest")
    assert (content(tmp_path / "place"), content(tmp_path / "kept")) == ("newest", "new")
    remove_folder(tmp_path / "place")
    assert names(tmp_path) == ["kept"]


def test_where_folders_cannot_be_exchanged_the_old_one_steps_aside_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "exchange", lambda *_: False)
    for text in ("old", "new"):
        with replaced_folder(tmp_path / "place") as draft:
            fill(draft, text)
    assert content(tmp_path / "place") == "new"
    replace = platform.replace

    def refused(source: Path, target: Path) -> None:
        if source.parent != tmp_path and target == tmp_path / "place":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(platform, "replace", refused)
    with pytest.raises(StoreUnavailableError), replaced_folder(tmp_path / "place") as draft:
        fill(draft, "refused")
    assert (content(tmp_path / "place"), names(tmp_path)) == ("new", ["place"])


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    killed, running = child(MAKE, tmp_path / "place"), child(MAKE, tmp_path / "place")
    left, kept = Path(read_line(killed)), Path(read_line(running))
    kill(killed)
    assert left.is_dir()
    with replaced_folder(tmp_path / "place") as draft:
        fill(draft, "new")
    assert not left.exists()
    assert (kept / "half").read_text() == "of it"
    kill(running)


def test_a_name_of_any_length_has_a_draft(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)
    with new_file(target) as draft:
        draft.write_text("whole")
    assert target.read_text() == "whole"


def test_a_file_is_not_written_over_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a folder"), new_file(tmp_path):
        pass
