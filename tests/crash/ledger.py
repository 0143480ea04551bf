"""What a worker says of each of its calls, before and after: one line of JSON each, outside the workspace.

A line survives the process that wrote it, since it is in the kernel's memory once `write` has returned. Names are
chosen by the worker and unique, so a call that never returned can be looked for, too.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from n4a_fast.errors import StoreError

Result = TypeVar("Result")


class GaveUp(Exception):
    """A call raised one of the errors that it may raise; what was to follow it is left out."""


class Ledger:
    """The calls of one thread of one process, in order."""

    def __init__(self, path: Path) -> None:
        self.path, self._number, self._calls = path, 0, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, said: str, **facts: Any) -> None:
        os.write(self._file, (json.dumps({"said": said, **facts}) + "\n").encode())

    def name(self) -> str:
        """A name that nobody else uses."""
        self._number += 1
        return f"{self.path.stem}.{self._number}"

    def call(self, kind: str, work: Callable[[], Result], *, durable: bool = False, **facts: Any) -> Result:
        """What `work` returns; intended, then done or failed. `durable`: so are all before it."""
        self._calls += 1
        number = self._calls
        self.say("intended", call=number, kind=kind, **facts)
        try:
            result = work()
        except StoreError as error:
            self.say("failed", call=number, error=type(error).__name__, told=str(error))
            raise GaveUp from error
        except (GaveUp, KeyboardInterrupt, SystemExit) as error:
            self.say("failed", call=number, error=type(error).__name__, told="")
            raise
        except Exception as error:
            self.say("failed", call=number, error=type(error).__name__, told=_where(error), untyped=True)
            raise GaveUp from error
        self.say("done", call=number, durable=durable)
        return result


def _where(error: Exception) -> str:
    """The error and the last calls that led to it, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-7:]
    calls = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
    return f"{type(error).__name__}: {error} at {' > '.join(calls)}"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; a last one that a kill cut is no line."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
