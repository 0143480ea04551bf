"""A chain in words: its steps, its folds, and what it was trained on as far as rows and operators tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from n4a_fast.errors import StoreError
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plan.folds import read_folds
from n4a_fast.replay.plan.replay_plan import Place
from n4a_fast.replay.serve.replayer import Replayer
from n4a_fast.values import checks
from n4a_fast.values.chain_input import ChainInput, read_input
from n4a_fast.values.texttable import plain_lines


@dataclass(frozen=True, slots=True)
class ChainDescription:
    """What a chain is. `note` tells why its operators could not be asked for what the rows do not say."""

    chain_id: str
    model_class: str
    preprocessings: str
    steps: tuple[str, ...]
    folds: tuple[str, ...]
    input: ChainInput
    note: str = ""

    def __str__(self) -> str:
        facts = str(self.input).splitlines() or ["nothing is known of its input"]
        folds = [f"folds {', '.join(self.folds)}"] if self.folds else []
        notes = [self.note] if self.note else []
        return "\n".join([f"chain {self.chain_id}", *(f"  {line}" for line in (*self.steps, *folds, *facts, *notes))])

    def __repr__(self) -> str:
        return plain_lines(str(self))


def describe_chain(replayer: Replayer, arrays: ArrayReader, chain_id: str) -> ChainDescription:
    """The description of one chain; its operators are loaded for it."""
    chain = replayer.require([checks.text(chain_id, "chain_id")])[chain_id]
    place = Place(chain_id, int(chain["model_step_idx"]), str(chain["model_class"]))
    folds = tuple(read_folds(chain["fold_artifacts"] or {}, place))
    facts, note = with_range(chain, arrays), ""
    try:
        plan = replayer.load_plan(chain, Bench(replayer.load_artifact), folds[:1] or "auto")
    except StoreError as error:
        note = f"its operators cannot be asked: {error}"
    else:
        facts = facts.filled_from(plan.inputs[0]) if len(plan.inputs) == 1 else facts
        facts = replace(facts, prediction_range=None) if facts.classes else facts
    steps = tuple(f"step {step.get('step_idx')} ({step.get('operator_class') or '?'})" for step in chain["steps"])
    return ChainDescription(
        chain_id, str(chain["model_class"]), str(chain["preprocessings"]), steps, folds, facts, note
    )


def with_range(chain: Mapping[str, Any], arrays: ArrayReader) -> ChainInput:
    """The stored facts of a chain, with the range of its stored predictions of the training partition."""
    facts = read_input(chain.get("input"))
    if facts.prediction_range or facts.classes:
        return facts
    stored = arrays.load(None, {"chain_id": chain["chain_id"], "partition": "train"}, ("y_pred",)).y_pred or ()
    values = [np.ravel(one) for one in stored if one is not None and np.size(one)]
    ends = (min(float(one.min()) for one in values), max(float(one.max()) for one in values)) if values else None
    return replace(facts, prediction_range=ends) if ends is not None and np.isfinite(ends).all() else facts
