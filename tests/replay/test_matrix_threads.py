"""Calls at the same time that bound the threads of matrix products: the least holds, then what there was before."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from n4a_fast.replay.serve.matrix_threads import matrix_threads


def bounds() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {each["num_threads"] for each in ThreadpoolController().select(user_api="blas").info()}


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_calls_that_overlap_leave_the_threads_as_they_were(first_ends_first: bool) -> None:
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before, calls = bounds(), [matrix_threads(2), matrix_threads(1)]
        for call in calls:
            call.__enter__()
        assert bounds() == {1}
        for call in calls if first_ends_first else reversed(calls):
            call.__exit__(None, None, None)
        assert bounds() == before == {2}


def test_a_call_within_another_takes_no_more_than_that() -> None:
    with matrix_threads(1), matrix_threads(2):
        assert bounds() == {1}
