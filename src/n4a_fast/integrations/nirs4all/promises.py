"""Artifacts that nirs4all 1.x registers for every variant, before it knows whether it will write their files."""

from __future__ import annotations

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import StoreError
from n4a_fast.tables.artifact_rows import Written


class Promises:
    """By id, what one store has registered of which no file has come yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, Written] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def register(self, workspace: Workspace, awaiting: list[Written]) -> list[str | StoreError]:
        """Note what awaits registration, whether its files are there or not. Ids begin with that of their pipeline: of
        one that was begun here and never left memory, the tables need not be asked.
        """
        artifacts, is_unstored = workspace.artifacts, workspace.predictions.is_unstored
        unstored = {each.artifact_id for each in awaiting if is_unstored(str(each.artifact_id).partition("$")[0])}
        results = artifacts.register(awaiting, promised=True, unstored=unstored)
        for written in awaiting:
            name = written.artifact_id
            if artifacts.is_promised(name) if name in unstored else not artifacts.files.changed_at(written.path):
                self._waiting[name] = written
        return results

    def kept(self, workspace: Workspace) -> list[Written]:
        """Those whose files have come: they are to be registered once more, and verified."""
        here = [each for each in self._waiting.values() if workspace.artifacts.files.changed_at(each.path)]
        for written in here:
            del self._waiting[written.artifact_id]
        return here
