"""What people do to the folder of an open store: rename it, remove it, put an older copy in its place.

What was acknowledged before it is void with what was removed: its ledgers go, too. What the open store acknowledges
afterwards counts, and so does what a new one on the same path does.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from hands import Hands
from ledger import GaveUp, Ledger

from n4a_fast import WorkspaceStore


def upheave(
    kind: str,
    store: WorkspaceStore,
    opened: Callable[[Ledger], WorkspaceStore],
    ledgers: Path,
    name: str,
    dice: random.Random,
) -> WorkspaceStore:
    """The folder of an open store is moved, removed or replaced while it works; a new store on the path."""
    folder, copies = store.workspace_path, (ledgers.with_name("ledgers-copy"), store.workspace_path.with_name("copy"))
    before = Ledger(ledgers / f"{name}-before")
    if kind == "replace":
        store.close()
        _copy(ledgers, copies[0])
        _copy(folder, copies[1])
        store = opened(before)
        Hands(store, before, dice).work(3)
    if kind == "rename":
        folder.rename(folder.with_name("moved"))
    else:
        for path in [path for path in ledgers.iterdir() if path.suffix != ".log"]:
            path.unlink()  # first: this may be killed anywhere
        shutil.rmtree(folder)
    if kind == "replace":
        copies[1].rename(folder)
        for path in [path for path in copies[0].iterdir() if path.suffix != ".log"]:
            shutil.copy(path, ledgers / path.name)
    Hands(store, Ledger(ledgers / f"{name}-during"), dice).work(4)
    if kind == "rename":
        if folder.exists():  # whoever made it may have said that it is durable
            before.say("wrong", what=f"a store whose folder was renamed made another: {list(folder.iterdir())}")
            shutil.rmtree(folder)
        folder.with_name("moved").rename(folder)
    ledger = Ledger(ledgers / f"{name}-after")
    with contextlib.suppress(GaveUp):
        ledger.call("look", store.close)
    anew = opened(ledger)
    Hands(anew, ledger, dice).work(4)
    return anew


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
