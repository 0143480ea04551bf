"""Every state that a kill or a power loss can leave, opened and compared with what was acknowledged."""

from __future__ import annotations

import json
import os
import random
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from helpers import DEADLINE, child
from recording import Disk, Image, Operation, operations, tears, write_image

_PROGRAM = Path(__file__).with_name("recorded.py")
_CHECKER = """
import json, sys
from pathlib import Path
from scan import problems
for line in sys.stdin:
    print(json.dumps(problems(**json.loads(line))), flush=True)
"""
LOSSES = 3  # power losses tried before each sync

Stored = tuple[str, str, int, float]  # folder below the workspace, pipeline, predictions, sum of all y_pred


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a program has been told at one moment."""

    must: dict[str, Stored] = field(default_factory=dict)  # by pipeline, or by shard and pipeline
    runs: dict[str, str] = field(default_factory=dict)  # of each pipeline
    gone: tuple[str, ...] = ()  # runs that were deleted

    def after(self, mark: str) -> Acknowledged:
        """What it has been told after one more mark."""
        word, place, *rest = mark.split()
        must, runs = dict(self.must), dict(self.runs)
        if word in ("saved", "shelved"):
            folder = "" if word == "saved" else f"shards/{place}"
            must[folder + rest[0]] = (folder, rest[0], int(rest[1]), float(rest[2]))
            runs[rest[0]] = place
        elif word in ("deleting", "deleted"):
            must = {key: stored for key, stored in must.items() if runs[stored[1]] != place}
        elif word == "merged":
            must |= {stored[1]: ("", *stored[1:]) for stored in must.values() if stored[0] == f"shards/{place}"}
        return replace(self, must=must, runs=runs, gone=(*self.gone, place) if word == "deleted" else self.gone)


class State(NamedTuple):
    """Files as a crash leaves them, how it came, and what must be in them."""

    how: str
    image: Image
    acknowledged: Acknowledged


def recorded(workload: str, folder: Path, recorder: Path) -> tuple[Disk, list[Operation]]:
    """A workload run with the recorder on a workspace that has been used before: its files then, and all it did."""
    root, record = folder / "workspace", folder / "record"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PROGRAM.parents[1]), *sys.path])}
    command = [sys.executable, str(_PROGRAM), workload, str(root), str(record)]
    for workload_before in ("bulk", "drain"):
        subprocess.run(
            [*command[:2], workload_before, str(root), os.devnull],
            env=_preloaded(environment, recorder),
            check=True,
            timeout=DEADLINE,
        )
    disk = Disk(root)
    subprocess.run(command, env=_preloaded(environment, recorder), check=True, timeout=DEADLINE)
    return disk, list(operations(record))


def states(disk: Disk, done: list[Operation], dice: random.Random) -> Iterator[State]:
    """Each write torn by a kill in several ways, and several power losses before each sync."""
    acknowledged = Acknowledged()
    for number, operation in enumerate(done):
        name = os.path.basename(operation.name)
        if operation.kind == "M":
            acknowledged = acknowledged.after(operation.name)
            continue
        if operation.kind == "W":
            for way, kept in enumerate(tears(operation, dice)):
                yield State(f"{number}: {name} torn, {way}", disk.after_kill(operation, kept), acknowledged)
        elif operation.kind in "SA":
            for loss in range(LOSSES):
                yield State(
                    f"{number}: power lost before sync of {name}, {loss}", disk.after_power_loss(dice), acknowledged
                )
        else:
            yield State(f"{number}: killed before {operation.kind} {name}", disk.after_kill(), acknowledged)
        disk.play(operation)
    yield State("at the end", disk.after_kill(), acknowledged)
    yield State("power lost at the end", disk.after_power_loss(dice), acknowledged)


class Checker:
    """A process that opens workspaces; a new one takes its place when it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, None

    def problems(self, state: State) -> list[str]:
        """What is wrong with a state."""
        root = self._folder / "state"
        shutil.rmtree(root, ignore_errors=True)
        write_image(state.image, root)
        request = {"root": str(root), "must": list(state.acknowledged.must.values()), "gone": state.acknowledged.gone}
        process = self._running()
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answer = process.stdout.readline() if selector.select(DEADLINE) else ""
        if answer:
            return [f"{state.how}: {problem}" for problem in json.loads(answer)]
        self.close()
        return [f"{state.how}: the checker died or hung"]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = os.pathsep.join((str(_PROGRAM.parent), *sys.path))
            self._process = child(f"import sys; sys.path[:0] = {environment.split(os.pathsep)!r}\n{_CHECKER}")
        return self._process


def problems(root: str, must: list[Stored], gone: list[str]) -> list[str]:
    """In the checker: what is missing of what must be there, what is there of what must not, what is not whole."""
    found = []
    try:
        for folder in dict.fromkeys(["", *(stored[0] for stored in must)]):
            found += _problems_of_store(Path(root) / folder, [s for s in must if s[0] == folder], gone)
    except Exception as error:  # any of them is a finding
        found.append(f"{type(error).__name__}: {error}")
    return found


def _problems_of_store(root: Path, must: list[Stored], gone: list[str]) -> list[str]:
    from n4a_fast import WorkspaceStore

    found = []
    with WorkspaceStore(root, flush_interval=None, lock_timeout=5.0) as store:
        rows = store.sql(
            "SELECT pipeline_id, count(*), count(y_pred), sum(list_sum(y_pred)) FROM predictions"
            " LEFT JOIN prediction_arrays USING (prediction_id) GROUP BY ALL"
        ).rows()
        counted = {row[0]: row[1:] for row in rows}
        for _, pipeline, count, value in must:
            if counted.get(pipeline) != (count, count, value):
                found.append(f"{pipeline} has {counted.get(pipeline)}, acknowledged was {(count, value)}")
        found += [f"{pipeline} is not whole: {row}" for pipeline, row in counted.items() if row[0] != row[1]]
        left = set(store.list_runs(limit=1000)["run_id"]) & set(gone)
        found += [f"deleted run {run} is back" for run in left]
        for artifact in store.sql("SELECT DISTINCT artifact_id FROM chain_artifacts").rows():
            store.load_artifact(*artifact)
        found += [str(finding) for finding in store.verify(quick=True).findings if not finding.is_leftover]
        store.begin_run("after", {}, [])  # it can be used
        store.flush()
    return found


def _preloaded(environment: dict[str, str], recorder: Path) -> dict[str, str]:
    return {**environment, "LD_PRELOAD": str(recorder)}
