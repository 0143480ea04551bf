"""`pytest --by-folder`: a line for each folder of tests once all of it has run, in place of a dot for each test.

`pytest --without-processes` skips each test where it begins to start a process, so that the rest is quick: nobody has
to say of a test whether it starts one. `pytest --few-cases N` takes N of the cases of each test that has parameters.
"""

from __future__ import annotations

import multiprocessing.process
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

_STARTS_A_PROCESS = frozenset({"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})
_REASON = "starts a process"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--by-folder", action="store_true", help="a line for each folder of tests")
    parser.addoption("--without-processes", action="store_true", help="skip a test where it starts a process")
    parser.addoption("--few-cases", type=int, metavar="N", help="the first N cases of each test that has parameters")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-processes"):
        config.pluginmanager.register(WithoutProcesses())
    if config.getoption("--by-folder") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (most := config.getoption("--few-cases")) is None:
        return
    cases: Counter[str] = Counter()
    kept: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        cases[test := item.nodeid.partition("[")[0]] += 1
        kept[cases[test] <= most].append(item)
    config.hook.pytest_deselected(items=kept[False])
    items[:] = kept[True]


class WithoutProcesses:
    """Skips a test, or a fixture, at the moment in which it starts a process."""

    def __init__(self) -> None:
        self._in_test = False
        sys.addaudithook(lambda event, _arguments: self._skip() if event in _STARTS_A_PROCESS else None)
        # those of multiprocessing and loky do not tell the interpreter
        multiprocessing.process.BaseProcess.start = lambda _process: self._skip()  # type: ignore[method-assign]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self._in_test = True
        yield
        self._in_test = False

    def _skip(self) -> None:
        if self._in_test:
            pytest.skip(_REASON)


class Folder:
    """How many tests of a folder are to come, what became of the others, and their seconds."""

    def __init__(self, tests: int) -> None:
        self.waiting, self.seconds = tests, 0.0
        self.outcomes: Counter[str] = Counter()

    def __str__(self) -> str:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"{self.seconds:7.1f} s   {told}"


class Progress:
    """Counts by folder, with or without the worker processes of xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._folders: dict[str, Folder] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._expect(ids)  # the same of each node

    def _expect(self, ids: list[str]) -> None:
        if not self._folders:
            self._folders = {name: Folder(tests) for name, tests in Counter(map(_folder_of, ids)).items()}

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No letter for what went as it should; pytest counts it all the same."""
        if report.failed:
            return None
        if report.skipped:
            return ("skipped", "", "SKIPPED")  # the word of the summary
        return ("passed" if report.when == "call" else "", "", "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = self._folders.get(_folder_of(report.nodeid))
        if folder is None:
            return
        folder.seconds += report.duration
        if report.when == "call" or not report.passed:
            folder.outcomes[report.outcome] += 1
        if report.when == "teardown":
            folder.waiting -= 1
            if not folder.waiting:
                self._write(f"{_folder_of(report.nodeid):<14} {folder}")

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            if reporter._tw.width_of_current_line:  # behind the letters of what failed
                reporter.write_line("")
            reporter.write_line(line)


@pytest.hookimpl(hookwrapper=True)
def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """The tests that were left out because they start a process are told by their number alone."""
    if terminalreporter.config.getoption("--without-processes"):
        skipped = terminalreporter.stats.get("skipped", [])
        others = [report for report in skipped if _REASON not in str(report.longrepr)]
        terminalreporter.stats["skipped"] = others
        terminalreporter.write_line(f"{len(skipped) - len(others)} tests start processes and were left out")
    yield


def _folder_of(nodeid: str) -> str:
    folders = nodeid.split("::")[0].split("/")[1:-1]
    return folders[0] if folders else "tests"
