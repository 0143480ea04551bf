"""The engine promises something of the end of an interpreter."""

from __future__ import annotations

import pytest
from forked import WHOLE_END


@pytest.fixture(autouse=True)
def interpreters_end_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHOLE_END, "1")
