"""Chains built from traces: plain objects with the attributes of an execution trace, saved in real stores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chemotools.scatter import StandardNormalVariate
from helpers import Sweep
from sklearn.cross_decomposition import PLSRegression

from n4a_fast import ChainBuilder, WorkspaceStore, replay_chain
from n4a_fast.errors import InvalidInputError


class Mode(str, Enum):  # noqa: UP042 - traces carry a str that is an Enum, not a StrEnum
    TRAIN = "train"
    SKIP = "skip"


@dataclass
class Artifacts:
    artifact_ids: list[str] = field(default_factory=list)
    fold_artifact_ids: dict[Any, str] = field(default_factory=dict)
    by_source: dict[int, list[str]] = field(default_factory=dict)


@dataclass
class Step:
    step_index: int
    operator_class: str
    artifacts: Artifacts = field(default_factory=Artifacts)
    branch_path: list[int] | None = field(default_factory=list)
    operator_config: dict[str, Any] | None = None
    operator_type: str = ""
    execution_mode: Any = Mode.TRAIN


@dataclass
class Trace:
    steps: list[Step]
    model_step_index: int | None = None
    preprocessing_chain: str | None = "SNV"


def transform(index: int, name: str, *ids: str, branch: list[int] | None = None, **changes: Any) -> Step:
    return Step(index, name, Artifacts(list(ids)), branch, **changes)


def model(index: int, name: str, folds: dict[Any, str], branch: list[int] | None = None) -> Step:
    return Step(index, name, Artifacts(list(folds.values()), folds), branch, {"n_components": 3}, "model")


def test_the_chain_of_a_plain_pipeline_names_steps_folds_and_shared_artifacts() -> None:
    trace = Trace([transform(1, "SNV", "a1"), transform(2, "KFold"), model(3, "PLS", {0: "m0", 1: "m1"})], 3)
    assert ChainBuilder(trace).build() == {
        "steps": [
            {"step_idx": 1, "operator_class": "SNV", "params": {}, "artifact_ids": ["a1"], "stateless": False},
            {"step_idx": 2, "operator_class": "KFold", "params": {}, "artifact_ids": [], "stateless": True},
            {
                "step_idx": 3,
                "operator_class": "PLS",
                "params": {"n_components": 3},
                "artifact_ids": ["m0", "m1"],
                "stateless": False,
                "operator_type": "model",
            },
        ],
        "model_step_idx": 3,
        "model_class": "PLS",
        "preprocessings": "SNV",
        "fold_strategy": "per_fold",
        "fold_artifacts": {"fold_0": "m0", "fold_1": "m1"},
        "shared_artifacts": {"1": ["a1"]},
        "branch_path": None,
        "source_index": None,
    }


@pytest.mark.parametrize(
    ("written", "key"),
    [
        (0, "fold_0"),
        ("0", "fold_0"),
        (np.int64(2), "fold_2"),
        ("fold_1", "fold_1"),
        (" fold_01", "fold_1"),
        ("final", "fold_final"),
        ("avg", "fold_avg"),
        ("w_avg", "fold_w_avg"),
        ("fold_w_avg", "fold_w_avg"),
        ("holdout", "fold_holdout"),
    ],
)
def test_fold_keys_take_one_form(written: Any, key: str) -> None:
    assert ChainBuilder(Trace([model(1, "PLS", {written: "m"})])).build()["fold_artifacts"] == {key: "m"}


def test_two_models_for_one_fold_are_refused_and_the_same_one_twice_is_not() -> None:
    assert ChainBuilder(Trace([model(1, "PLS", {0: "m", "fold_0": "m"})])).build()["fold_artifacts"] == {"fold_0": "m"}
    with pytest.raises(InvalidInputError, match=r"step 1 \(PLS\) names two models, 'm' and 'n', for fold_0"):
        ChainBuilder(Trace([model(1, "PLS", {0: "m", "fold_0": "n"})])).build_all()


@pytest.mark.parametrize("mode", [Mode.SKIP, "skip", "SKIP"])
def test_skipped_steps_are_left_out(mode: Any) -> None:
    trace = Trace([transform(1, "SNV", "a1", execution_mode=mode), model(2, "PLS", {0: "m"})])
    chain = ChainBuilder(trace).build()
    assert [step["step_idx"] for step in chain["steps"]] == [2]
    assert chain["shared_artifacts"] == {}


def test_each_model_gets_a_chain_that_ends_with_it_and_shares_no_other_model() -> None:
    trace = Trace(
        [
            transform(1, "SNV", "a1"),
            model(2, "PLS", {0: "p"}),
            transform(3, "Scaler", "a3"),
            model(4, "Ridge", {0: "r"}),
        ],
        2,
    )
    first, second = ChainBuilder(trace).build_all()
    assert [step["step_idx"] for step in first["steps"]] == [1, 2]
    assert (first["model_class"], first["shared_artifacts"]) == ("PLS", {"1": ["a1"]})
    assert [step["step_idx"] for step in second["steps"]] == [1, 2, 3, 4]
    assert (second["model_class"], second["shared_artifacts"]) == ("Ridge", {"1": ["a1"], "3": ["a3"]})
    assert ChainBuilder(trace).build() == first


@pytest.mark.parametrize("index", [None, 9])
def test_without_a_known_primary_model_the_last_one_counts(index: int | None) -> None:
    trace = Trace([model(2, "PLS", {0: "p"}), model(4, "Ridge", {0: "r"})], index)
    assert ChainBuilder(trace).build()["model_class"] == "Ridge"


def test_a_chain_holds_its_own_branch_and_what_came_before_it() -> None:
    trace = Trace(
        [
            transform(1, "SNV", "a"),
            transform(2, "Detrend", "b0", branch=[0]),
            transform(2, "Gradient", "b1", branch=[1]),
            transform(3, "Scaler", "c10", branch=[1, 0]),
            transform(3, "PCA", "c11", branch=[1, 1]),
            model(4, "PLS", {0: "m0"}, [0]),
            model(4, "PLS", {0: "m10"}, [1, 0]),
            model(4, "PLS", {0: "m11"}, [1, 1]),
        ]
    )
    chains = {tuple(chain["branch_path"]): chain for chain in ChainBuilder(trace).build_all()}
    assert {path: chain["shared_artifacts"] for path, chain in chains.items()} == {
        (0,): {"1": ["a"], "2": ["b0"]},
        (1, 0): {"1": ["a"], "2": ["b1"], "3": ["c10"]},
        (1, 1): {"1": ["a"], "2": ["b1"], "3": ["c11"]},
    }
    assert [step["operator_class"] for step in chains[1, 0]["steps"]] == ["SNV", "Gradient", "Scaler", "PLS"]
    assert chains[1, 0]["fold_artifacts"] == {"fold_0": "m10"}


def test_a_model_after_a_merge_takes_the_artifacts_of_all_branches() -> None:
    trace = Trace(
        [
            transform(2, "Detrend", "b0", branch=[0]),
            transform(2, "Gradient", "b1", branch=[1]),
            model(3, "PLS", {0: "m"}),
        ]
    )
    chain = ChainBuilder(trace).build()
    assert (chain["shared_artifacts"], chain["branch_path"]) == ({"2": ["b0", "b1"]}, None)


def test_a_step_over_several_sources_says_which_artifact_is_whose() -> None:
    one, two = Artifacts(["a"], by_source={0: ["a"]}), Artifacts(["b", "c"], by_source={0: ["b"], 1: ["c"]})
    chain = ChainBuilder(Trace([Step(1, "SNV", one), Step(2, "Scaler", two), model(3, "PLS", {0: "m"})])).build()
    assert chain["shared_artifacts"] == {"1": ["a"], "2": ["b", "c"], "_source_map": {"2": {"0": ["b"], "1": ["c"]}}}


@pytest.mark.parametrize(("kind", "index"), [("model", None), ("", 2)])
def test_a_model_without_folds_is_shared_at_its_own_step(kind: str, index: int | None) -> None:
    trace = Trace(
        [transform(1, "SNV", "a"), transform(2, "PLS", "m", operator_type=kind), transform(3, "Chart")], index
    )
    chain = ChainBuilder(trace).build()
    assert (chain["model_step_idx"], chain["model_class"], chain["fold_strategy"]) == (2, "PLS", "shared")
    assert (chain["fold_artifacts"], chain["shared_artifacts"], len(chain["steps"])) == (
        {},
        {"1": ["a"], "2": ["m"]},
        2,
    )


def test_a_trace_without_a_model_or_without_steps_still_makes_one_chain() -> None:
    (chain,) = ChainBuilder(Trace([transform(1, "SNV", "a")])).build_all()
    assert (chain["model_class"], chain["model_step_idx"], chain["shared_artifacts"]) == ("", 0, {"1": ["a"]})
    empty = ChainBuilder(Trace([], None, None)).build()
    assert (empty["steps"], empty["preprocessings"]) == ([], "")


def test_building_changes_neither_the_trace_nor_an_earlier_chain() -> None:
    trace = Trace([transform(1, "SNV", "a", operator_config={"axis": 1}), model(2, "PLS", {0: "m"})])
    builder = ChainBuilder(trace, artifact_registry=object())
    first = builder.build()
    first["steps"][0]["params"]["axis"] = 0
    first["shared_artifacts"]["1"].append("x")
    assert trace.steps[0].operator_config == {"axis": 1}
    assert builder.build()["shared_artifacts"] == {"1": ["a"]}


def test_built_chains_are_stored_and_predict_branch_by_branch(store: WorkspaceStore, sweep: Sweep) -> None:
    rng = np.random.default_rng(7)
    X, y = rng.normal(1.0, 0.2, (30, 12)), rng.normal(size=30)
    snv = StandardNormalVariate().fit(X)
    inputs = {0: snv.transform(X), 1: X}
    models = {branch: PLSRegression(2 + branch).fit(data, y) for branch, data in inputs.items()}
    ids = {branch: store.save_artifact(fitted, "PLSRegression", "model", "joblib") for branch, fitted in models.items()}
    snv_id = store.save_artifact(snv, "StandardNormalVariate", "transformer", "joblib")
    trace = Trace(
        [
            transform(1, "StandardNormalVariate", snv_id, branch=[0]),
            *(model(2, "PLSRegression", {"final": ids[b]}, [b]) for b in ids),
        ]
    )
    for branch, arguments in enumerate(ChainBuilder(trace).build_all()):
        chain_id = store.save_chain(sweep.pipeline, **arguments)
        expected = models[branch].predict(inputs[branch]).ravel()
        np.testing.assert_allclose(np.ravel(replay_chain(store, chain_id, X)), expected, rtol=1e-12)


TRACES: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "traces" / "traces.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", TRACES)
def test_traces_of_nirs4all_give_its_own_chains_without_the_steps_of_other_branches(name: str) -> None:
    told = TRACES[name]
    steps = [
        SimpleNamespace(**{**step, "artifacts": SimpleNamespace(**step["artifacts"])})
        for step in told["trace"]["steps"]
    ]
    builder = ChainBuilder(SimpleNamespace(**{**told["trace"], "steps": steps}))
    for found, expected in zip(
        [builder.build(), *builder.build_all()], [told["build"], *told["build_all"]], strict=True
    ):
        plain = [{key: value for key, value in step.items() if key != "operator_type"} for step in found["steps"]]
        assert {**found, "steps": None} == {**expected, "steps": None}
        others = [step for step in expected["steps"] if step not in plain]
        assert [step for step in expected["steps"] if step in plain] == plain
        assert not others or found["branch_path"]
        assert not {one for step in others for one in step["artifact_ids"]} & {
            one for ids in found["shared_artifacts"].values() for one in ids
        }
