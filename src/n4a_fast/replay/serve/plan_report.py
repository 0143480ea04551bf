"""A chain's plan in words: what is fused, what runs plainly and why, how far it is from the plain path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from n4a_fast.replay.fused.compile import TOLERANCE
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.serve.replayer import Choice, Replayer
from n4a_fast.values import checks
from n4a_fast.values.notebook import plan_cell
from n4a_fast.values.texttable import plain_lines


@dataclass(frozen=True, slots=True)
class PlanReport:
    """How a chain is replayed. `error` is the largest relative difference to the plain path found when it was
    compiled.
    """

    chain_id: str
    compiled: bool
    steps: tuple[str, ...]
    error: float | None

    def __repr__(self) -> str:
        return plain_lines(str(self))

    def _repr_html_(self) -> str | None:
        return plan_cell(self)

    def __str__(self) -> str:
        if self.compiled:
            head = f"compiled; {self.error:.1g} from the plain path when it was checked (limit {TOLERANCE:.0e})"
        else:
            head = "runs plainly" if self.steps else "not looked at yet: replay it, or give X"
        return "\n".join([f"chain {self.chain_id}: {head}", *(f"  {step}" for step in self.steps)])


def report_plan(replayer: Replayer, chain_id: str, X: Any, wavelengths: Any) -> PlanReport:
    """The report of one chain; it is compiled on X where it is not known yet."""
    choice, state = Choice(), replayer.state()
    known = replayer.recall([checks.text(chain_id, "chain_id")], choice).get(chain_id)
    if known is None:
        chain = replayer.require([chain_id])[chain_id]
        if X is not None:
            bench = Bench(replayer.load_artifact)
            known = replayer.compile(
                replayer.load_plan(chain, bench, choice.folds), X, wavelengths, choice, bench, state
            )
    return _report(chain_id, known)


def _report(chain_id: str, known: CompiledChain | PlainChain | None) -> PlanReport:
    if isinstance(known, CompiledChain):
        return PlanReport(chain_id, True, known.notes, known.error)
    return PlanReport(chain_id, False, known.notes if known else (), None)
