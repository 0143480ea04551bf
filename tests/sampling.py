"""Cases of a test of which some are run each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def some(cases: Iterable[Any], few: int) -> list[ParameterSet]:
    """The first cases of a test are run each time, the others with those that are slow."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if number < few else pytest.mark.slow)
        for number, case in enumerate(cases)
    ]
