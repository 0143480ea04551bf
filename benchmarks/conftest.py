"""The rules of README.md, enforced: what a benchmark declares, floors that match, a second run for a missed floor."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _pytest.runner import runtestprotocol
from children import build_workspace
from harness import FLOORS, FloorMissed, Measure, Result, as_run, described
from slower import slow_down

from n4a_fast import WorkspaceStore

KINDS = ("gate", "report")
RESULTS: dict[str, Result] = {}
EXPECTED: set[str] = set()
_FLOOR_MISSED = pytest.StashKey[bool]()

slow_down()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write every measured number to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    for kind in KINDS:
        config.addinivalue_line("markers", f"{kind}(declaration): see benchmarks/README.md")


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Measure]:
    """The measuring of this benchmark; it must come to a result."""
    declared = _declaration(request.node)
    result = Result(declared, request.node.path.stem.removeprefix("test_"))
    measuring = Measure(result, request)
    if declared.missing:
        EXPECTED.discard(declared.name)
        pytest.skip(f"{declared.name} needs {', '.join(declared.missing)}, which this machine has not")
    yield measuring
    if measuring.done:
        RESULTS[declared.name] = result


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkspaceStore]:
    """An open store in a new workspace."""
    with WorkspaceStore(tmp_path / "workspace") as opened:
        yield opened


class Large(NamedTuple):
    """A workspace of many predictions that nobody changes, the ids of them in the order they were saved, and what
    building it took.
    """

    folder: Path
    ids: list[str]
    built: dict[str, Any]

    def copy(self, folder: Path) -> Path:
        """The same workspace elsewhere, to be changed."""
        return shutil.copytree(self.folder, folder)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Large]:
    """Workspaces by their number of predictions, each built once: `large(100_000)`, and for reports
    `large(1_000_000)`.
    """

    @functools.cache
    def of(rows: int) -> Large:
        folder = tmp_path_factory.mktemp("large") / str(rows)
        built = build_workspace(folder, rows)
        with WorkspaceStore.open_readonly(folder) as store:
            return Large(
                folder,
                store.sql("SELECT prediction_id FROM predictions ORDER BY rowid")["prediction_id"].to_list(),
                built,
            )

    return of


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a set of benchmarks that does not keep the rules."""
    problems = [problem for item in items for problem in _problems(item)]
    names = [_declaration(item).name for item in items if not _problems(item)]
    problems += [
        f"two benchmarks are called {name}" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if all(Path(argument.split("::")[0]).is_dir() for argument in config.args):
        problems += [f"{name}: a floor without a benchmark" for name in sorted(set(FLOORS) - set(names))]
    if problems:
        raise pytest.UsageError("; ".join(problems))


def pytest_collection_finish(session: pytest.Session) -> None:
    EXPECTED.update(_declaration(item).name for item in session.items)
    if not session.items and not session.config.option.collectonly:
        raise pytest.UsageError("no benchmark was selected")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    if call.excinfo is not None and call.excinfo.errisinstance(FloorMissed):
        item.stash[_FLOOR_MISSED] = True
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Function, nextitem: pytest.Item | None) -> bool:
    """Run a benchmark; one that missed its floor runs once more, from the start, and only then counts."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if item.stash.get(_FLOOR_MISSED, False):
        _print(
            item.config,
            f"\n{_declaration(item).name} missed its floor with {RESULTS[_declaration(item).name].value:.4g}; measuring"
            " it again",
        )
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail when a benchmark came to no result; keep the numbers where `--results` says."""
    if session.config.option.collectonly:
        return
    silent = sorted(EXPECTED - set(RESULTS))
    if silent and exitstatus == pytest.ExitCode.OK:
        _print(session.config, f"\ncame to no result: {', '.join(silent)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.config.option.results is not None:
        session.config.option.results.parent.mkdir(parents=True, exist_ok=True)
        session.config.option.results.write_text(json.dumps(as_run(RESULTS.values()), indent=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each number, beside its floor."""
    for name, result in sorted(RESULTS.items(), key=lambda found: (found[1].capability, found[0])):
        floor = f"  ({described(name).split(':')[0].removeprefix('floors.toml asks for ')})" if name in FLOORS else ""
        terminalreporter.write_line(f"  {result.capability:12} {name:40} {result.value:10.4g} {result.unit}{floor}")


def _declaration(item: pytest.Item) -> Any:
    return next(mark.args[0] for mark in item.iter_markers() if mark.name in KINDS)


def _problems(item: pytest.Item) -> list[str]:
    """What this benchmark fails to declare or to check."""
    marks = [mark for mark in item.iter_markers() if mark.name in KINDS]
    if len(marks) != 1:
        return [f"{item.nodeid}: a benchmark is exactly one of @gate(...) and @report(...)"]
    found, name = [], marks[0].args[0].name
    if marks[0].name == "gate" and name not in FLOORS:
        found.append(f"{item.nodeid}: no floor {name} in floors.toml")
    if marks[0].name == "report" and name in FLOORS:
        found.append(f"{item.nodeid}: a report has no floor, {name} has one")
    tree = ast.parse(textwrap.dedent(inspect.getsource(item.function)))  # type: ignore[attr-defined]
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        found.append(f"{item.nodeid}: asserts nothing about its result")
    return found


def _print(config: pytest.Config, line: str) -> None:
    config.get_terminal_writer().line(line)
