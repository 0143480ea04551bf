"""What must, may and must not be in a workspace, from the ledgers of its writers, and whether it is.

A call that was acknowledged (it is durable itself and returned, or such a one of the same thread returned after it, or
its process ended while Python still ran) must be there; one that was rolled back or deleted must not; of others, a
thread's work is there up to some call and not beyond, and a transaction whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ledger as ledgers
from found import Found
from hands import values

FACTS = frozenset(
    {"run", "pipeline", "chain", "prediction", "arrays", "log", "complete", "bulk", "merge", "project", "end run"}
)


@dataclass
class Call:
    """One call of a ledger."""

    number: int
    kind: str
    facts: dict[str, Any]
    block: Call | None  # the transaction that it is in
    state: str = "open"
    durable: bool = False
    acknowledged: bool = False
    inner: list[Call] = field(default_factory=list)


@dataclass
class Fates:
    """Names whose rows a later call removes: for certain, or perhaps."""

    runs: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, bool] = field(default_factory=dict)  # pipelines
    predictions: dict[str, bool] = field(default_factory=dict)


@dataclass
class Verdict:
    """What is wrong, by kind, and how much was looked at."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    looked_at: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, told: str) -> None:
        self.faults.append((kind, told))


def judge(paths: list[Path], found: Found, verdict: Verdict) -> None:
    """Compare every ledger with what is in the workspace."""
    for path in paths:
        lines = ledgers.read(path)
        for line in lines:
            if line.get("untyped"):
                verdict.fault("untyped", f"{path.name}: {line['told']}")
            if line["said"] == "wrong":
                verdict.fault("wrong", f"{path.name}: {line['what']}")
        calls = calls_of(lines)
        verdict.looked_at.update(call.kind for call in calls if call.acknowledged)
        Judgement(path.name, calls, found, verdict).judge()


def calls_of(lines: list[dict[str, Any]]) -> list[Call]:
    """The calls of a ledger in order, each with what became of it."""
    calls: dict[int, Call] = {}
    open_blocks: list[Call] = []
    for line in lines:
        if line["said"] == "intended":
            facts = {name: value for name, value in line.items() if name not in ("said", "call", "kind")}
            block = open_blocks[-1] if open_blocks else None
            call = calls[line["call"]] = Call(line["call"], line["kind"], facts, block)
            if block is not None:
                block.inner.append(call)
            if call.kind == "transaction":
                open_blocks.append(call)
        elif line["said"] in ("done", "failed"):
            call = calls[line["call"]]
            call.state, call.durable = line["said"], line.get("durable", False)
            if open_blocks and open_blocks[-1] is call:
                open_blocks.pop()
            if call.durable and call.block is None:
                _acknowledge(calls)
        elif line["said"] == "ended":
            _acknowledge(calls)
    return list(calls.values())


def _acknowledge(calls: dict[int, Call]) -> None:
    for call in calls.values():
        if call.block is None:
            call.acknowledged = call.state == "done"
        else:
            block = call.block
            call.acknowledged = call.state == "done" and block.state == "done" and block.facts["ends_well"]


class Judgement:
    """One ledger against what was found."""

    def __init__(self, name: str, calls: list[Call], found: Found, verdict: Verdict) -> None:
        self._name, self._calls, self._found, self._verdict = name, calls, found, verdict
        self._fates = self._decided(fates_of(calls))
        self._run_of = {call.facts["name"]: call.facts["run"] for call in calls if call.kind == "pipeline"}
        self._pipeline_of = {call.facts["name"]: call.facts["pipeline"] for call in calls if call.kind == "prediction"}

    def judge(self) -> None:
        for call in self._calls:
            if call.kind in FACTS:
                self._judge_call(call)
        self._judge_order()
        for call in self._calls:
            if call.kind == "transaction" and not call.acknowledged:
                self._judge_block(call)
        self._judge_values()

    def _decided(self, fates: Fates) -> Fates:
        """A deletion that was not acknowledged has been, or has not: the rows that go last or stay tell which."""
        runs = {name for name, certain in fates.runs.items() if certain or name not in self._found.runs}
        failed = {
            name for name, certain in fates.failed.items() if certain or self._found.status(name) in (None, "failed")
        }
        gone = {name for name, certain in fates.predictions.items() if certain or name not in self._found.predictions}
        return Fates(dict.fromkeys(runs, True), dict.fromkeys(failed, True), dict.fromkeys(gone, True))

    def _judge_call(self, call: Call) -> None:
        there = self.presence(call)
        if there == "half":
            self._fault("half", call)
        elif self.is_undone(call):
            if there == "there":
                self._fault("undead", call)
        elif call.acknowledged and there == "absent":
            self._fault("lost", call)

    def is_undone(self, call: Call) -> bool:
        """Whether a later call, or the end of its block, has taken back what this one did."""
        block = call.block
        while block is not None:
            if not block.facts["ends_well"] and block.state == "done":
                return True
            block = block.block
        names = call.facts
        pipeline = names["name"] if call.kind == "pipeline" else names.get("pipeline")
        if not pipeline and call.kind == "arrays":
            pipeline = self._pipeline_of.get(names["name"])
        run = names["name"] if call.kind in ("run", "end run") else names.get("run") or self._run_of.get(pipeline or "")
        if run in self._fates.runs:
            return call.kind != "project"
        if pipeline in self._fates.failed:
            return call.kind != "pipeline"
        return call.kind in ("prediction", "arrays") and names["name"] in self._fates.predictions

    def presence(self, call: Call) -> str:
        """`there`, `absent` or `half`."""
        found, facts = self._found, call.facts
        if call.kind in ("bulk", "merge"):
            among = found.predictions if call.kind == "bulk" else found.pipelines
            count = sum(name in among for name in facts["names"] if name not in self._fates.predictions)
            wanted = sum(name not in self._fates.predictions for name in facts["names"])
            return "half" if 0 < count < wanted else _word(count == wanted)
        if call.kind == "complete":
            return _word(found.status(facts["pipeline"]) == "completed")
        if call.kind == "end run":
            return _word(found.runs.get(facts["name"]) in ("completed", "failed"))
        if call.kind == "chain":
            return _word(facts["name"] in found.chains)
        among = {
            "run": found.runs,
            "pipeline": found.pipelines,
            "prediction": found.predictions,
            "arrays": found.arrays,
            "log": found.logs,
            "project": found.projects,
        }[call.kind]
        return _word(facts["name"] in among)

    def _judge_order(self) -> None:
        """Work that was not acknowledged is there up to some call of its thread, and not beyond."""
        missing: Call | None = None
        for call in self._calls:
            if call.kind not in FACTS or call.state != "done" or self.is_undone(call) or self._in_failed_block(call):
                continue
            there = self.presence(call)
            if there == "absent":
                missing = missing or call
            elif missing is not None and there == "there" and not self._is_older(call):
                earlier = f"{missing.kind} {missing.facts} before it is not"
                self._verdict.fault("half", f"{self._name}: {call.kind} {call.facts} is there, {earlier}")
                return

    @staticmethod
    def _is_older(call: Call) -> bool:
        return call.kind == "arrays" and not call.facts["pipeline"]  # a re-save: the first values were there before

    @staticmethod
    def _in_failed_block(call: Call) -> bool:
        return call.block is not None and call.block.state != "done"

    def _judge_block(self, block: Call) -> None:
        """A transaction that never returned is there whole or not at all."""
        inner = [call for call in block.inner if call.kind in FACTS and call.state == "done"]
        seen = {call.number: self.presence(call) for call in inner if call.kind != "run"}
        if block.state == "done" and not block.facts["ends_well"]:
            return  # judged call by call
        if len(set(seen.values())) > 1:
            self._verdict.fault("half", f"{self._name}: a transaction is there by half: {seen}")

    def _judge_values(self) -> None:
        """Arrays are those of their prediction: the last acknowledged ones, or later ones."""
        given: dict[str, list[Call]] = {}
        for call in self._calls:
            if call.kind == "arrays":
                given.setdefault(call.facts["name"], []).append(call)
        for name, calls in given.items():
            if name not in self._found.arrays:
                continue
            last = max((i for i, call in enumerate(calls) if call.acknowledged), default=0)
            allowed = [values(name, call.facts["version"]).tolist() for call in calls[last:]]
            if self._found.arrays[name] not in allowed:
                self._verdict.fault("wrong", f"{self._name}: arrays of {name} are {self._found.arrays[name]}")
        for call in self._calls:
            if call.kind == "bulk":
                for name in set(call.facts["names"]) & self._found.arrays.keys():
                    if self._found.arrays[name] != values(name, 0).tolist():
                        self._verdict.fault("wrong", f"{self._name}: arrays of {name} are {self._found.arrays[name]}")
            loaded = self._found.chains.get(call.facts["name"]) if call.kind == "chain" else None
            if loaded is not None and loaded != sorted(set(call.facts["artifacts"])):
                self._verdict.fault("dangling", f"{self._name}: {call.facts} loads {loaded}")

    def _fault(self, kind: str, call: Call) -> None:
        self._verdict.fault(kind, f"{self._name}: call {call.number}, {call.kind} {call.facts}, {call.state}")


def fates_of(calls: list[Call]) -> Fates:
    """What was asked to be removed; True where it was acknowledged."""
    fates = Fates()
    of_kind = {"delete run": fates.runs, "fail": fates.failed, "delete prediction": fates.predictions}
    for call in calls:
        if call.kind in of_kind:
            name = call.facts["pipeline" if call.kind == "fail" else "name"]
            of_kind[call.kind][name] = call.state == "done" and call.block is None
    return fates


def _word(there: bool) -> str:
    return "there" if there else "absent"
