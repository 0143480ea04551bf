"""A recorded program's files as they were at any moment, and as a power loss would have left them.

`recorder.c` notes every change of files below a folder. Here the record is played again on a model of a disk
that knows, for each file and for the names, what was synced and what came since.
"""

from __future__ import annotations

import copy
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_HEAD = struct.Struct("<4I4Q")
_SOURCE = Path(__file__).with_name("recorder.c")

Inode = tuple[int, int]
_FOLDER: Inode = (0, 0)  # a number that a removed folder had may be a file's later


class Operation(NamedTuple):
    """One change: `kind` is a letter of `recorder.c`."""

    kind: str
    inode: Inode
    name: str
    other: str
    offset: int
    data: bytes


@dataclass(slots=True)
class _File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    since: list[Operation] = field(default_factory=list)  # what is not durable


Image = dict[str, bytes]


class Disk:
    """Files below a folder, by name and inode; `play` takes them one change further."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._names: dict[str, Inode] = {}
        self._files: dict[Inode, _File] = {}
        for path in root.rglob("*"):
            if path.is_file():
                status, content = path.stat(), path.read_bytes()
                self._names[str(path)] = inode = (status.st_dev, status.st_ino)
                self._files[inode] = _File(bytearray(content), bytearray(content))
        self._durable_names, self._names_since = dict(self._names), list[Operation]()
        self._new_folders: set[str] = set()
        self._births: dict[Inode, int] = {}

    def copy(self) -> Disk:
        """Another disk in the same state."""
        return copy.deepcopy(self)

    def play(self, operation: Operation) -> None:
        """Make a change, or a sync, in full."""
        kind = operation.kind
        if kind == "C":  # numbers of removed files are given again
            self._births[operation.inode] = self._births.get(operation.inode, 0) + 1
        operation = self._of_file(operation)
        if kind in "WT":
            file = self._files.setdefault(operation.inode, _File())
            _change(file.now, operation, None)
            file.since.append(operation)
        elif kind == "S" and operation.inode in self._files:
            _settle(self._files[operation.inode])
        elif kind in "SA":
            self._sync_names(operation.name if kind == "S" else None)
            for file in self._files.values() if kind == "A" else ():
                _settle(file)
        elif kind in "CDNLUX":
            if kind == "C":
                self._files[operation.inode] = _File()
            elif kind == "D":
                self._new_folders.add(operation.name)
            _rename(self._names, operation)
            self._names_since.append(operation)

    def content(self, name: str) -> bytes:
        """What a file holds now."""
        return bytes(self._files[self._names[name]].now)

    def durable_content(self, name: str) -> bytes:
        """What a power loss is sure to leave of a file."""
        return bytes(self._files[self._names[name]].durable)

    def after_kill(self, torn: Operation | None = None, kept: set[int] | None = None) -> Image:
        """The files if the program ends now, within the write `torn`, of which only these sectors arrive."""
        image = {name: bytes(self._files[inode].now) for name, inode in self._names.items() if inode in self._files}
        if torn is not None:
            torn = self._of_file(torn)
            for name, inode in self._names.items():
                if inode == torn.inode and inode in self._files:
                    content = bytearray(image[name])
                    _change(content, torn, kept)
                    image[name] = bytes(content)
        return self._relative(image)

    def after_power_loss(self, dice: random.Random) -> Image:
        """The files if power fails now: of what is not synced, any sectors of any write, and names up to any moment."""
        names = dict(self._durable_names)
        for operation in self._names_since[: dice.randint(0, len(self._names_since))]:
            _rename(names, operation)
        left: dict[Inode, bytes] = {}
        for inode in self._files.keys() & names.values():
            content = bytearray(self._files[inode].durable)
            for operation in self._files[inode].since:
                if operation.kind == "T" and dice.random() < 0.5:
                    _change(content, operation, None)
                elif operation.kind == "W":
                    share = dice.choice((0.0, 0.5, 1.0))
                    _change(content, operation, {n for n in sectors(operation) if dice.random() < share})
            left[inode] = bytes(content)
        lost = tuple(folder + "/" for folder in self._new_folders - names.keys())
        return self._relative(
            {name: left[inode] for name, inode in names.items() if inode in left and not name.startswith(lost)}
        )

    def _of_file(self, operation: Operation) -> Operation:
        """The same with a number that no other file has had."""
        births = self._births.get(operation.inode, 0)
        return operation._replace(inode=(operation.inode[0] + (births << 64), operation.inode[1]))

    def _sync_names(self, folder: str | None) -> None:
        """Names of a folder last from now on; None: all names do."""
        waiting = []
        for operation in self._names_since:
            if folder is None or folder in (os.path.dirname(operation.name), os.path.dirname(operation.other)):
                _rename(self._durable_names, operation)
            else:
                waiting.append(operation)
        self._names_since = waiting

    def _relative(self, image: Image) -> Image:
        return {os.path.relpath(name, self._root): content for name, content in image.items()}


def sectors(write: Operation) -> range:
    """The sectors of the disk that a write touches."""
    return range(write.offset // SECTOR, (write.offset + max(len(write.data), 1) - 1) // SECTOR + 1)


def tears(write: Operation, dice: random.Random) -> Iterator[set[int]]:
    """Some of the ways in which a write can arrive in part: its first half, its second half, any sectors."""
    touched = list(sectors(write))
    if len(touched) > 1:
        middle = len(touched) // 2
        yield set(touched[:middle])
        yield set(touched[middle:])
        for share in (0.1, 0.5, 0.9):
            yield {sector for sector in touched if dice.random() < share}


def operations(record: Path) -> Iterator[Operation]:
    """What a record holds, in order."""
    with record.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, name, other, _, device, inode, offset, length = _HEAD.unpack(head)
            names = file.read(name).decode(), file.read(other).decode()
            yield Operation(chr(kind), (device, inode), *names, offset, file.read(length))


def write_image(image: Image, root: Path) -> None:
    """Put the files of an image below a new folder."""
    for name, content in image.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "artifacts").mkdir(parents=True, exist_ok=True)


def built_recorder(folder: Path) -> Path:
    """The compiled recorder, to be preloaded."""
    library = folder / "recorder.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def _settle(file: _File) -> None:
    for operation in file.since:
        _change(file.durable, operation, None)
    file.since.clear()


def _change(content: bytearray, operation: Operation, kept: set[int] | None) -> None:
    """A write, of which only these sectors arrive, or a new length."""
    if operation.kind == "T":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    begin, end = operation.offset, operation.offset + len(operation.data)
    pieces = [(begin, end)]
    if kept is not None:
        pieces = [(max(begin, n * SECTOR), min(end, (n + 1) * SECTOR)) for n in sorted(kept)]
    for start, stop in pieces:
        content.extend(bytes(max(start - len(content), 0)))
        content[start:stop] = operation.data[start - begin : stop - begin]


def _rename(names: dict[str, Inode], operation: Operation) -> None:
    if operation.kind in "CD":
        names[operation.name] = operation.inode if operation.kind == "C" else _FOLDER
    elif operation.kind in "UX":
        names.pop(operation.name, None)
    else:
        names[operation.other] = operation.inode
        if operation.kind == "N":
            names.pop(operation.name, None)
