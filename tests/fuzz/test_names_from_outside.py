"""Names that a stranger chose: none of them becomes markup, a command of the terminal, code, or a place in the disk."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from typer import Exit

from n4a_fast import PipelineLibrary, WorkspaceStore
from n4a_fast.bundles import script
from n4a_fast.cli.application import stop
from n4a_fast.cli.printing import json_text, print_csv, write
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreError, UnsafePathError
from n4a_fast.integrations.workspaces import convert

MARKUP = '</script><script>alert(1)</script><img src=x onerror=alert(2)>"\' onmouseover="x'
MOVES = "\x1b[31mred\x1b]8;;http://evil\x07link\x1b]8;;\x07\u202elive\u2066\r\x9b31m\x00"
NAME = MARKUP + MOVES + '"""\nraise SystemExit("ran")\n"""\\'
X = np.random.default_rng(0).random((20, 5))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    """A workspace in which every name is the one above."""
    name = NAME.replace("\x00", "")
    with WorkspaceStore(tmp_path_factory.mktemp("theirs")) as store:
        run = store.begin_run(name, {name: name}, [{"name": name}])
        pipeline = store.begin_pipeline(run, name, {"steps": name}, [], name, "h")
        model = store.save_artifact(SVR().fit(X, X[:, 0]), name, "model", "joblib")
        scaler = store.save_artifact(StandardScaler().fit(X), name, "transformer", "joblib")
        steps = [{"step_idx": n, "operator_class": name, "params": {}} for n in (1, 2)]
        known = {"columns": [f"{n}{name}" for n in range(5)], "targets": [name], "target_unit": name}
        chain = store.save_chain(pipeline, steps, 2, name, name, name, {"fold_0": model}, {"1": [scaler]}, input=known)
        for fold in ("0", "1"):
            saved = store.save_prediction(
                pipeline, chain, name, name, name, fold, "val", 0.3, 0.2, 0.1, "rmse", "regression", 20, 5,
                {}, {name: name}, None, name, 0, 0.0, name,
            )  # fmt: skip
            store.save_prediction_arrays(saved, X[:, 0], X[:, 1])
        store.complete_pipeline(pipeline, 0.3, 0.2, "rmse", 100)
        store.fail_pipeline(store.begin_pipeline(run, name, {}, [], name, "h"), name)
        yield store


class Elements(HTMLParser):
    """Scripts, and what runs or loads something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.active = 0, list[Any]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        outside = [name for name, value in attrs if name in ("src", "href") and not str(value).startswith("#")]
        if tag in ("img", "iframe", "object", "embed", "base") or outside or any(name[:2] == "on" for name, _ in attrs):
            self.active.append((tag, attrs))


def moving(text: str) -> set[str]:
    return {each for each in text if not each.isprintable()} - {"\n"}


@pytest.mark.long
def test_no_name_becomes_markup_in_the_report_or_a_notebook(theirs: WorkspaceStore, tmp_path: Path) -> None:
    page = theirs.report(tmp_path / "report.html", charts=True).path.read_text("utf-8")
    run, chain = (theirs.sql(f"SELECT {kind}_id FROM {kind}s").item() for kind in ("run", "chain"))
    shown = [theirs, theirs.leaderboard(), theirs.run(run), theirs.replay_plan(chain)]
    cells = [cell for each in shown if (cell := each._repr_html_()) is not None]
    assert len(cells) == len(shown)
    found = [Elements(each) for each in (page, *cells)]
    assert [(each.scripts, each.active) for each in found] == [(1, []), *[(0, [])] * len(cells)]
    assert set().union(*(moving(repr(each)) for each in (*shown, theirs.chain(chain)))) == set()


@pytest.mark.parametrize("kind", ["heatmap", "scores", "boxes", "folds", "timeline", "scatter"])
def test_no_name_becomes_markup_in_a_chart(theirs: WorkspaceStore, tmp_path: Path, kind: str) -> None:
    chain = theirs.sql("SELECT chain_id FROM chains").item() if kind == "scatter" else None
    chart = theirs.plot(kind, chain)
    assert (Elements(chart.svg()).scripts, Elements(chart.svg()).active) == (0, [])
    page = chart.save(tmp_path / "chart.html").read_text("utf-8")
    assert (Elements(page).scripts, Elements(page).active) == (2, [])
    drawn = json.loads(re.search(r"const spec = (.*?);\n", page)[1])  # type: ignore[index]
    assert drawn["data"] == json.loads(json.dumps(chart.spec["data"]))
    assert drawn["usermeta"]["embedOptions"]["actions"]["source"] is False  # it would be written as HTML


def test_no_name_reaches_the_terminal_with_what_moves_it(
    theirs: WorkspaceStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(NAME)
    write(json_text({"name": NAME}))
    with pytest.raises(Exit):
        stop(NAME)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_csv([{"name": NAME}])
    told = capsys.readouterr()
    assert moving(told.out) == moving(told.err) == set()
    assert json.loads(next(line for line in told.out.splitlines() if line.startswith("{"))) == {"name": NAME}


@pytest.mark.parametrize("error", [StoreError(MOVES), NotFoundError("run", MOVES, MOVES), InvalidInputError(MOVES)])
def test_errors_say_names_in_plain_text(error: StoreError) -> None:
    assert moving(str(error)) == set()


def test_data_for_other_programs_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    cell = "=cmd|' /C calc'!A0" + MOVES
    print_csv([{"name": cell}])
    import csv

    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline=""))) == [["name"], [cell]]


def test_a_script_with_hostile_names_runs_none_of_them(theirs: WorkspaceStore, tmp_path: Path) -> None:
    path = theirs.export_chain(theirs.sql("SELECT chain_id FROM chains").item(), tmp_path / "m.n4a.py", "n4a.py")
    text = path.read_text("utf-8")
    assert moving(text.partition("from __future__")[0]) == set()
    kinds = {type(each) for each in ast.parse(text).body}
    assert ast.Raise not in kinds
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, "ran" in done.stderr) == (0, False)


@pytest.mark.parametrize("text", [NAME, 'x"\nimport os\n"' * 40, "\\" * 121, "a" * 119 + '\\"' + "b" * 30, "é" * 200])
def test_constants_of_a_script_are_what_they_were(text: str) -> None:
    for value in (text, [text], {text: text}):
        assert ast.literal_eval(script._literal(value)) == value


@pytest.mark.parametrize("category", ["C:", "a:b", "con", "NUL.txt", "lpt1", "..", "a/b", "a\\b", "/etc", "x\x1b"])
def test_a_category_is_a_plain_folder_on_every_system(tmp_path: Path, category: str) -> None:
    with pytest.raises(InvalidInputError):
        PipelineLibrary(tmp_path).save_template({"steps": [1]}, "t", category)
    assert list(tmp_path.iterdir()) == []


TRICKS = ("link", "linked folder", "linked library", "pipe")


def planted(what: str, root: Path) -> Path:
    """A template of a workspace, once something that is no file lies in the library."""
    secret, folder = root.parent / "secret", root / "library" / "general" / "t"
    (secret / "general" / "t").mkdir(parents=True)
    (secret / "id").write_text("private")
    if what == "link":
        (folder / "notes").symlink_to(secret / "id")
    elif what == "linked folder":
        (folder / "notes").symlink_to(secret)
    elif what == "pipe":
        os.mkfifo(folder / "notes")
    else:
        (root / "library").rename(root / "old")
        (root / "library").symlink_to(root / "old")
    return folder


@pytest.mark.parametrize("what", TRICKS)
def test_backups_and_templates_bring_no_file_from_elsewhere(tmp_path: Path, what: str) -> None:
    backup = tmp_path / "backup"
    with WorkspaceStore(tmp_path / "w") as store:
        PipelineLibrary(tmp_path / "w").save_template({"steps": [1]}, "t")
        store.backup(backup)
    folder = planted(what, backup)
    with pytest.raises(UnsafePathError):
        WorkspaceStore.restore(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    if what != "linked library":
        with pytest.raises(UnsafePathError):
            PipelineLibrary(tmp_path / "ours").import_template(folder)
        with pytest.raises(UnsafePathError):
            PipelineLibrary(backup).export_template("t", tmp_path / "exported")


@pytest.mark.parametrize("what", TRICKS)
def test_a_backup_of_a_strangers_workspace_brings_no_file_from_elsewhere(tmp_path: Path, what: str) -> None:
    PipelineLibrary(tmp_path / "w").save_template({"steps": [1]}, "t")
    with WorkspaceStore(tmp_path / "w") as store:
        planted(what, tmp_path / "w")
        with pytest.raises(UnsafePathError, match="notes|library"):
            store.backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("name", ["pipeline.json", "metadata.json"])
def test_a_template_that_is_a_pipe_or_a_link_is_told_and_not_waited_for(tmp_path: Path, name: str) -> None:
    library = PipelineLibrary(tmp_path / "w")
    file = library.save_template({"steps": [1]}, "t") / name
    elsewhere = file.rename(tmp_path / name)
    for place in (os.mkfifo, lambda path: path.symlink_to(elsewhere)):
        place(file)
        with pytest.raises(UnsafePathError, match=name):
            library.load_template("t") if name == "pipeline.json" else library.get_template_metadata("t")
        with WorkspaceStore(tmp_path / "w") as store:
            (finding,) = store.verify(quick=True).findings
        assert (finding.kind, finding.path) == ("damaged template", file)
        file.unlink()


def test_of_a_converted_workspace_links_stay_links_and_pipes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "w" / "exports").mkdir(parents=True)
    with WorkspaceStore(tmp_path / "w"):
        pass
    (tmp_path / "secret").write_text("private")
    (tmp_path / "w" / "exports" / "table.csv").write_text("x")
    (tmp_path / "w" / "exports" / "link").symlink_to(tmp_path / "secret")
    for place in (tmp_path / "w", tmp_path / "w" / "exports"):
        os.mkfifo(place / "pipe")
    convert(tmp_path / "w", tmp_path / "converted")
    copied = tmp_path / "converted" / "exports"
    assert sorted(path.name for path in copied.iterdir()) == ["link", "table.csv"]
    assert (copied / "link").is_symlink()
    assert not (tmp_path / "converted" / "pipe").exists()


def test_partitions_by_long_names_are_refused_by_name(theirs: WorkspaceStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="too long for a folder's name"):
        theirs.export_predictions_parquet(tmp_path / "p", partition_by="dataset_name")
    assert list(tmp_path.iterdir()) == []
