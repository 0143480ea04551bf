"""Stored chains of real sweeps, several sources and channels among them: compiled, they predict what the plain path
does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_reference_chains import DATA, stored_chains, zipped

from n4a_fast.replay import execute, load_chain
from n4a_fast.replay.fused.compile import TOLERANCE, compile_chain
from n4a_fast.replay.fused.compiled import WHOLE, CompiledChain
from n4a_fast.replay.fused.stages import Bench, line_of
from n4a_fast.replay.plain.execute import plain_features
from n4a_fast.replay.plain.inputs import read_spectra
from n4a_fast.replay.plan.folds import weights_of

pytestmark = pytest.mark.filterwarnings("ignore")


def compiled_part(found: CompiledChain, plan: Any, X: Any, bench: Bench) -> np.ndarray[Any, Any]:
    if found.start == WHOLE:
        return plain_features(plan, X)[0]
    stages = line_of(plan, bench.names)
    assert stages is not None
    return bench.after(stages[: found.start], read_spectra(plan, X)[0], None, "all")


@pytest.mark.parametrize("name", sorted(stored_chains()))
def test_a_stored_chain_compiles_or_says_why_not(name: str) -> None:
    with np.load(DATA / "chains-X.npz") as data:
        X = data["X"]
    given = [X, X[:, ::2]] if name.startswith("sources") else X
    for entry in stored_chains()[name]:
        bench = Bench(zipped(entry["files"]))
        plan = load_chain(entry["chain"], bench.loader(frozenset()))
        found = compile_chain(plan, weights_of(tuple(plan.model.fold_ids), None), given, None, bench)
        if not isinstance(found, CompiledChain):
            assert "runs plainly" in found.notes[-1]
            continue
        expected = execute(plan, given, folds=list(plan.model.fold_ids))
        assert (
            np.abs(found.apply(compiled_part(found, plan, given, bench)) - expected).max()
            <= 10 * TOLERANCE * np.abs(expected).max()
        )
