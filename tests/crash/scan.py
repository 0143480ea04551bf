"""Every state that a kill or a power loss can leave, opened and compared with what was acknowledged."""

from __future__ import annotations

import json
import math
import os
import random
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import xxhash
from helpers import DEADLINE, child, finish, library, plain_rows, program
from recorded import SUMS
from recording import RECORDER, Disk, Image, Operation, operations, tears, write_image

from n4a_fast.durable.duckdb_file import DuckDBFile, is_whole

_PROGRAM = Path(__file__).with_name("recorded.py")
_CHECKER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from scan import problems
for line in sys.stdin:
    print(json.dumps(problems(**json.loads(line))), flush=True)
"""
LOSSES = 3  # power losses tried before each sync

Stored = tuple[str, str, int, float]  # folder, pipeline, predictions, sum of all y_pred


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a program has been told at one moment."""

    must: tuple[Stored, ...] = ()
    if_there: tuple[Stored, ...] = ()  # of folders that appear whole, or not at all
    runs: dict[str, str] = field(default_factory=dict)  # of each pipeline
    gone: tuple[tuple[str, str], ...] = ()  # folder and run that was deleted from it

    def after(self, mark: str) -> Acknowledged:
        """What it has been told after one more mark."""
        word, folder, *rest = mark.split()
        if word == "saved":
            stored = (folder, rest[1], int(rest[2]), float(rest[3]))
            return replace(self, must=(*self.must, stored), runs=self.runs | {rest[1]: rest[0]})
        if word in ("deleting", "deleted"):
            must = tuple(each for each in self.must if (each[0], self.runs[each[1]]) != (folder, rest[0]))
            return replace(self, must=must, gone=(*self.gone, (folder, rest[0])) if word == "deleted" else self.gone)
        copied = tuple((rest[0], *each[1:]) for each in self.must if each[0] == folder)
        if word == "copied":
            must = tuple(each for each in self.must if each not in copied)
            return replace(self, must=(*must, *copied), if_there=())
        is_new = all(each[0] != rest[0] for each in self.must)
        return replace(self, if_there=copied if is_new else ())


class State(NamedTuple):
    """Files as a crash leaves them, how it came, and what must be in them."""

    how: str
    image: Image
    acknowledged: Acknowledged

    def digest(self) -> str:
        """The same of states that are the same, however they came: a fifth of all, around syncs and openings."""
        hashed = xxhash.xxh3_128(repr(self.acknowledged).encode())
        for name, content in sorted(self.image.items()):
            hashed.update(f"{name}\n{None if content is None else len(content)}\n".encode())
            hashed.update(content or b"")
        return hashed.hexdigest()


class Recorded(NamedTuple):
    """The files before a program, and all that it did."""

    disk: Disk
    done: list[Operation]

    def moments(self) -> list[tuple[int, int]]:
        """All states: the place of an operation, and a number of one of the ways in which a crash can hit it."""
        moments = []
        for place, operation in enumerate(self.done):
            moments += [(place, way) for way in range(_ways(operation))]
        return [*moments, *((len(self.done), way) for way in range(1 + LOSSES))]

    def states(self, moments: Sequence[tuple[int, int]], seed: int) -> Iterator[State]:
        """Those of some moments, in order."""
        disk, played, acknowledged = self.disk.copy(), 0, Acknowledged()
        for place, way in moments:
            for operation in self.done[played:place]:
                acknowledged = acknowledged.after(operation.name) if operation.kind == "M" else acknowledged
                disk.play(operation)
            played, dice = place, random.Random(f"{seed} {place} {way}")
            yield State(*self._crashed(disk, place, way, dice), acknowledged)

    def _crashed(self, disk: Disk, place: int, way: int, dice: random.Random) -> tuple[str, Image]:
        if place == len(self.done):
            return f"at the end, {way}", disk.after_power_loss(dice) if way else disk.after_kill()
        operation = self.done[place]
        name = os.path.basename(operation.name)
        if operation.kind == "W":
            return f"{place}: {name} torn, {way}", disk.after_kill(operation, tears(operation, dice)[way])
        if operation.kind in "SA":
            return f"{place}: power lost before sync of {name}, {way}", disk.after_power_loss(dice)
        return f"{place}: killed before {operation.kind} {name}", disk.after_kill()


def _ways(operation: Operation) -> int:
    """In how many ways a crash is tried at an operation; a mark is none."""
    if operation.kind == "W":
        return len(tears(operation, random.Random()))
    return {"S": LOSSES, "A": LOSSES, "M": 0}.get(operation.kind, 1)


def recorded(workload: str, folder: Path) -> Recorded:
    """A workload run with the recorder, beside a workspace that has been used before."""
    place, record = folder / "place", folder / "record"
    shutil.copytree(_used(), place)
    _run("prepare", workload, place)
    disk = Disk(place)
    _run(workload, place, record, LD_PRELOAD=str(library(RECORDER)))
    return Recorded(disk, list(operations(record)))


@cache
def _used() -> Path:
    """A folder with a workspace that holds rows of bulk calls and of small pipelines."""
    kept = tempfile.TemporaryDirectory(prefix="used-")
    _used.kept = kept  # type: ignore[attr-defined]  # until this process ends
    for workload in ("bulk", "drain"):
        _run(workload, Path(kept.name) / "place")
    return Path(kept.name) / "place"


def _run(*arguments: object, **variables: str) -> None:
    finish(program(_PROGRAM, *arguments, **variables))


class Checker:
    """A process that opens workspaces; a new one takes its place when it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, None

    def problems(self, state: State) -> list[str]:
        """What is wrong with a state."""
        root, told = self._folder / "state", state.acknowledged
        shutil.rmtree(root, ignore_errors=True)
        write_image(state.image, root)
        request = {"root": str(root), "must": told.must, "if_there": told.if_there, "gone": told.gone}
        process = self._running()
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answer = process.stdout.readline() if selector.select(DEADLINE) else ""
        if answer:
            return [f"{state.how}: {problem}" for problem in json.loads(answer)]
        last_words = self.close()
        return [f"{state.how}: the checker died or hung: {last_words}"]

    def close(self) -> str:
        """End the process; what it said on stderr."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        return str(process.communicate()[1])

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = child(_CHECKER, _PROGRAM.parent)
        return self._process


def problems(root: str, must: list[Stored], if_there: list[Stored], gone: list[tuple[str, str]]) -> list[str]:
    """In the checker: what is missing of what must be there, what is there of what must not, what is not whole."""
    found = []
    must = [*must, *(stored for stored in if_there if (Path(root) / stored[0]).exists())]
    for folder in dict.fromkeys(["workspace", *(stored[0] for stored in must)]):
        try:
            left = [run for place, run in gone if place == folder]
            found += _problems_of_store(Path(root) / folder, [each for each in must if each[0] == folder], left)
        except Exception as error:  # any of them is a finding
            found.append(f"{folder}: {type(error).__name__}: {error}")
    return found


def _problems_of_store(root: Path, must: list[Stored], gone: list[str]) -> list[str]:
    """Opened, read, verified and written to by the store; then what is in the file, by DuckDB alone."""
    from n4a_fast import WorkspaceStore
    from n4a_fast.integrations.workspaces import migrate
    from n4a_fast.maintenance.verify_indexes import wrong_indexes

    if root.name == "foreign":
        migrate(root)
    with WorkspaceStore(root, flush_interval=None, lock_timeout=5.0) as store:
        left = set(store.list_runs(limit=1000)["run_id"]) & set(gone)
        found = [str(each) for each in store.verify(quick=True).findings if not each.is_leftover]
        found += [str(each) for each in wrong_indexes(store._open().database)]
        found += [str(each) for each in store.verify_artifacts().damaged.values()]
        if root.name == "foreign":
            found = []  # its archive has not got all files
        store.begin_run("after", {}, [])  # it can be used
    file = root / "store.duckdb"
    counted = {row[0]: row[1:] for row in plain_rows(file, SUMS)}
    found += [f"deleted run {run} is back" for run in left]
    found += [
        f"{root.name}: {pipeline} has {counted.get(pipeline)}, acknowledged was {(count, value)}"
        for _, pipeline, count, value in must
        if not _are_equal(counted.get(pipeline), count, value)
    ]
    found += [f"{pipeline} is not whole: {row}" for pipeline, row in counted.items() if row[0] != row[1]]
    return found + [f"block {block} has a wrong checksum" for block in wrong_blocks(file.read_bytes())]


def layout(content: bytes) -> DuckDBFile:
    """What a store file says of itself."""
    return DuckDBFile(lambda offset, length: content[offset : offset + length])


def wrong_blocks(content: bytes) -> list[int]:
    """Blocks in use whose checksum is wrong."""
    file = layout(content)
    free = file.blocks().free
    return [block for block in range(file.active.blocks) if block not in free and not is_whole(file.block(block))]


def _are_equal(row: tuple[int, int, float] | None, count: int, value: float) -> bool:
    return row is not None and row[:2] == (count, count) and math.isclose(row[2], value, rel_tol=1e-12)
