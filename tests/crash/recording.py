"""A recorded program's files as they were at any moment, and as a power loss would have left them.

`recorder.c` notes every change of files below a folder. Here the record is played again on a model of a disk
that knows, for each file and for the names, what was synced and what came since.
"""

from __future__ import annotations

import copy
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_HEAD = struct.Struct("<4I4Q")
RECORDER = Path(__file__).with_name("recorder.c")

Inode = tuple[int, int]
_Entry = tuple[Inode, str]  # a folder, and a name in it
_Names = dict[_Entry, Inode | None]  # None: the name is taken away


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


Image = dict[str, bytes | None]  # None: a folder


class Disk:
    """Files below a folder, by names and inodes; `play` takes them one change further."""

    def __init__(self, root: Path) -> None:
        self._root, self._top = str(root), _inode(root)
        self._files: dict[Inode, _File] = {}
        self._names: _Names = {}
        for path in root.rglob("*"):
            self._names[_inode(path.parent), path.name] = _inode(path)
            if path.is_file():
                content = path.read_bytes()
                self._files[_inode(path)] = _File(bytearray(content), bytearray(content))
        self._durable_names, self._names_since = dict(self._names), list[_Names]()
        self._births: dict[Inode, int] = {}

    def copy(self) -> Disk:
        """Another disk in the same state."""
        return copy.deepcopy(self)

    def play(self, operation: Operation) -> None:
        """Make a change, or a sync, in full."""
        kind = operation.kind
        if kind in "CD":  # numbers of removed files are given again
            self._births[operation.inode] = self._births.get(operation.inode, 0) + 1
        inode = self._known(operation.inode)
        if kind in "WT":
            file = self._files.setdefault(inode, _File())
            _change(file.now, operation, None)
            file.since.append(operation)
        elif kind == "S" and inode in self._files:
            _settle(self._files[inode])
        elif kind in "SA":
            self._sync_names(inode if kind == "S" else None)
            for file in self._files.values() if kind == "A" else ():
                _settle(file)
        elif kind in "CDNELUX":
            if kind == "C":
                self._files[inode] = _File()
            self._names_since.append(self._renamed(operation, inode))
            _apply(self._names, self._names_since[-1])

    def content(self, name: str) -> bytes:
        """What a file holds now."""
        return bytes(self._file(name).now)

    def is_named(self, name: str) -> bool:
        """Whether a power loss is sure to leave a file under its name."""
        entry = self._entry(name)
        return entry in self._names and self._durable_names.get(entry) == self._names[entry]

    def durable_content(self, name: str) -> bytes:
        """What a power loss is sure to leave of a file."""
        return bytes(self._file(name).durable)

    def after_kill(self, torn: Operation | None = None, kept: set[int] | None = None) -> Image:
        """The files if the program ends now, within the write `torn`, of which only these sectors arrive."""
        left = {inode: bytes(self._files[inode].now) for inode in self._files.keys() & self._names.values()}
        hit = None if torn is None else self._known(torn.inode)
        if torn is not None and hit in left:
            content = bytearray(left[hit])
            _change(content, torn, kept)
            left[hit] = bytes(content)
        return _image(self._names, self._top, left)

    def after_power_loss(self, dice: random.Random) -> Image:
        """The files if power fails now: of what is not synced, any sectors of any write, and names up to any moment."""
        names = dict(self._durable_names)
        for renamed in self._names_since[: dice.randint(0, len(self._names_since))]:
            _apply(names, renamed)
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
        return _image(names, self._top, left)

    def _file(self, name: str) -> _File:
        return self._files[self._names[self._entry(name)]]

    def _known(self, inode: Inode) -> Inode:
        """A number that no other file has had."""
        return inode[0] + (self._births.get(inode, 0) << 64), inode[1]

    def _entry(self, name: str) -> _Entry:
        """Where a name stands now."""
        *folders, last = os.path.relpath(name, self._root).split(os.sep)
        place = self._top
        for folder in folders:
            place = self._names[place, folder]
        return place, last

    def _renamed(self, operation: Operation, inode: Inode) -> _Names:
        """What an operation makes of names."""
        first = self._entry(operation.name)
        if operation.kind in "CD":
            return {first: inode}
        if operation.kind in "UX":
            return {first: None}
        second = self._entry(operation.other)
        if operation.kind == "L":
            return {second: inode}
        return {first: self._names[second] if operation.kind == "E" else None, second: self._names[first]}

    def _sync_names(self, folder: Inode | None) -> None:
        """Names in a folder last from now on; None: all names do."""
        waiting = []
        for renamed in self._names_since:
            if folder is None or any(place == folder for place, _ in renamed):
                _apply(self._durable_names, renamed)
            else:
                waiting.append(renamed)
        self._names_since = waiting


def _inode(path: Path) -> Inode:
    status = path.stat()
    return status.st_dev, status.st_ino


def _apply(names: _Names, renamed: _Names) -> None:
    for entry, inode in renamed.items():
        if inode is None:
            names.pop(entry, None)
        else:
            names[entry] = inode


def _image(names: _Names, top: Inode, left: dict[Inode, bytes]) -> Image:
    """Folders that can be reached, and files with what is left of them."""
    within: dict[Inode, list[tuple[str, Inode]]] = {}
    for (folder, name), inode in names.items():
        within.setdefault(folder, []).append((name, inode))
    image, folders = Image(), [("", top)]
    for path, folder in folders:
        for name, inode in within.get(folder, ()):
            image[os.path.join(path, name)] = left.get(inode)
            if inode not in left:
                folders.append((os.path.join(path, name), inode))
    return image


def sectors(write: Operation) -> range:
    """The sectors of the disk that a write touches."""
    return range(write.offset // SECTOR, (write.offset + max(len(write.data), 1) - 1) // SECTOR + 1)


def tears(write: Operation, dice: random.Random) -> list[set[int]]:
    """Some of the ways in which a write can arrive in part: its first half, its second half, any sectors; nothing of it
    where it is within one sector.
    """
    touched = list(sectors(write))
    if len(touched) == 1:
        return [set()]
    middle = len(touched) // 2
    some = ({sector for sector in touched if dice.random() < share} for share in (0.1, 0.5, 0.9))
    return [set(touched[:middle]), set(touched[middle:]), *some]


def operations(record: Path) -> Iterator[Operation]:
    """What a record holds, in order."""
    with record.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, name, other, _, device, inode, offset, length = _HEAD.unpack(head)
            names = file.read(name).decode(), file.read(other).decode()
            yield Operation(chr(kind), (device, inode), *names, offset, file.read(length))


def write_image(image: Image, root: Path) -> Path:
    """`root`, a new folder that holds the files of an image."""
    for name, content in image.items():
        path = root / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
    return root


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
