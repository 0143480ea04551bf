"""Stored chains in all their shapes become plans, or are refused by step and reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from replay_chains import ChainMaker, Constant, Shifted, Voter, spectra
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from n4a_fast.errors import NotFoundError, ReplayError
from n4a_fast.replay import execute, load_chain
from n4a_fast.replay.plan.replay_plan import AugmentationStep, TransformStep

X = spectra()


def total(maker: ChainMaker, **options: Any) -> float:
    """The sum over one prediction of a chain whose model adds up the first row."""
    return float(maker.predict(np.zeros((1, 2)), **options)[0])


class Sum:
    """A regression model that adds up the columns."""

    def predict(self, X: Any) -> Any:
        return X.sum(axis=1)


def test_a_plan_holds_the_steps_in_order_and_the_models_by_fold() -> None:
    maker = (
        ChainMaker()
        .step(MinMaxScaler().fit(X))
        .step(Shifted(1.0), Shifted(2.0))
        .model(keys={"fold_1": Constant(1.0), "fold_0": Constant(0.0)})
    )
    plan = maker.load()
    assert [type(step) for step in plan.steps] == [TransformStep, TransformStep]
    assert [str(step.place) for step in plan.steps] == ["step 1 (MinMaxScaler)", "step 2 (Shifted)"]
    assert [operator.by for operator in plan.steps[1].operators[0]] == [1.0, 2.0]
    assert list(plan.model.models) == ["0", "1"]
    with pytest.raises(AttributeError):
        plan.steps = ()
    with pytest.raises(TypeError):
        plan.model.models["0"] = None


@pytest.mark.parametrize("form", [lambda ids: ids, lambda ids: ids[0], tuple])
@pytest.mark.parametrize("key", [1, "1"])
def test_shared_artifacts_may_be_text_or_list_under_text_or_number(form: Any, key: Any) -> None:
    maker = ChainMaker().step(Shifted(3.0)).model(Sum())
    maker.chain["shared_artifacts"] = {key: form(maker.chain["shared_artifacts"]["1"]), "_made_by": {"anything": 1}}
    assert total(maker) == 6.0


def test_artifacts_of_one_step_run_in_order() -> None:
    maker = (
        ChainMaker().step(StandardScaler().fit(X), MinMaxScaler().fit(StandardScaler().fit_transform(X))).model(Sum())
    )
    expected = MinMaxScaler().fit_transform(StandardScaler().fit_transform(X)).sum(axis=1)
    np.testing.assert_allclose(maker.predict(X), expected, rtol=1e-12)


@pytest.mark.parametrize("own", ["artifact_id", "artifact_ids"])
def test_where_shared_artifacts_are_silent_the_step_speaks(own: str) -> None:
    maker = ChainMaker().step(Shifted(3.0)).step(Shifted(1.0)).model(Sum())
    for shared in ({}, {"2": maker.chain["shared_artifacts"]["2"]}):
        maker.chain["shared_artifacts"] = shared
        first = maker.chain["steps"][0]
        ids = first.pop("artifact_ids", None) or [first.pop("artifact_id")]
        first[own] = ids[0] if own == "artifact_id" else ids
        assert total(maker) == 8.0


def test_a_missing_artifact_is_named() -> None:
    maker = ChainMaker().step(Shifted(1.0)).model(Sum())
    maker.chain["shared_artifacts"]["1"] = ["gone"]
    with pytest.raises(NotFoundError, match="gone"):
        maker.load()


def test_only_the_folds_asked_for_are_loaded() -> None:
    maker = ChainMaker().model(keys={"fold_0": Sum(), "fold_final": Sum()})
    maker.chain["fold_artifacts"]["fold_0"] = "gone"
    assert total_of(maker, folds="auto") == 0.0
    with pytest.raises(NotFoundError):
        maker.load()


def total_of(maker: ChainMaker, folds: Any) -> float:
    plan = load_chain(maker.chain, maker.shelf, folds=folds)
    return float(execute(plan, np.zeros((1, 2)), folds=folds)[0])


def test_a_model_without_folds_lies_among_the_shared_artifacts() -> None:
    maker = ChainMaker().step(Shifted(1.0)).step(Sum(), name="Ridge")
    maker.chain["model_step_idx"] = 2
    assert list(maker.load().model.models) == ["final"]
    assert total(maker) == total(maker, folds="final") == 2.0


def test_a_chain_without_any_model_is_refused() -> None:
    maker = ChainMaker().step(Shifted(1.0)).model()
    with pytest.raises(ReplayError, match=r"step 2 \(Ridge\) has no fold models"):
        maker.load()
    maker.chain["fold_artifacts"] = {"avg": "a0", "w_avg": "a0"}
    with pytest.raises(ReplayError, match="no fold models"):
        maker.load()


def test_a_chain_whose_model_step_is_missing_is_refused() -> None:
    maker = ChainMaker().step(Shifted(1.0)).model(Sum())
    maker.chain["model_step_idx"] = 9
    with pytest.raises(ReplayError, match="no step has the index 9"):
        maker.load()
    maker.chain["model_step_idx"] = None
    with pytest.raises(ReplayError, match="model_step_idx is None"):
        maker.load()


def test_artifacts_that_cannot_do_the_work_of_their_step_are_refused() -> None:
    with pytest.raises(ReplayError, match=r"step 1 \(Sum\).*without transform\(\)"):
        ChainMaker().step(Sum()).model(Sum()).load()
    with pytest.raises(ReplayError, match=r"step 1 \(Shifted\).*without predict\(\)"):
        ChainMaker().model(Shifted(1.0)).load()
    with pytest.raises(ReplayError, match=r"without inverse_transform\(\)"):
        ChainMaker().step(Shifted(1.0), kind="y_processing").model(Sum()).load()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shared_artifacts": {"first": "a0"}}, "'first', which is no step index"),
        ({"shared_artifacts": {"1": [3]}}, "neither an artifact id nor a list"),
        ({"shared_artifacts": {"0": "a0", "1": "a0"}}, r"names the steps \[0\]"),
        ({"steps": [{"operator_class": "SNV"}]}, "has no step_idx"),
        ({"steps": None, "shared_artifacts": None}, "no step has the index"),
    ],
)
def test_rows_that_make_no_chain_are_refused(change: dict[str, Any], named: str) -> None:
    maker = ChainMaker().step(Shifted(1.0)).model(Sum())
    maker.chain |= change
    with pytest.raises(ReplayError, match=named):
        maker.load()


# -- steps that share an index: branches and nested lists -------------------------------------


def branched(path: list[int] | None = None) -> ChainMaker:
    """A step for all, then two branches under one index, each with an operator and a model."""
    maker = ChainMaker().step(Shifted(1.0))
    for shift in (10.0, 100.0):
        maker.step(Shifted(shift)).model(Sum())
        for step in maker.chain["steps"][-2:]:
            step["step_idx"] = 2
    first, second = (maker.chain["steps"][position]["artifact_ids"] for position in (1, 3))
    maker.chain |= {"branch_path": path, "model_step_idx": 2}
    maker.chain["shared_artifacts"] = {
        "1": maker.chain["steps"][0]["artifact_ids"],
        "2": second if path == [1] else first,
    }
    maker.chain["fold_artifacts"] = {"fold_0": maker.chain["steps"][4 if path == [1] else 2]["artifact_ids"][0]}
    return maker


@pytest.mark.parametrize(("path", "expected"), [([0], 22.0), ([1], 202.0)])
def test_a_branch_runs_its_own_artifacts_and_no_others(path: list[int], expected: float) -> None:
    assert total(branched(path)) == expected


def test_a_nested_list_runs_each_of_its_steps_once() -> None:
    maker = ChainMaker().step(Shifted(1.0)).step(StandardScaler().fit(X)).model(Sum())
    for step, index in zip(maker.chain["steps"], (1, 1, 2), strict=True):
        step["step_idx"] = index
    maker.chain["shared_artifacts"] = {
        "1": [item for step in maker.chain["steps"][:2] for item in step["artifact_ids"]]
    }
    maker.chain["model_step_idx"] = 2
    np.testing.assert_allclose(maker.predict(X), StandardScaler().fit(X).transform(X + 1.0).sum(axis=1))


def test_steps_that_share_an_index_must_name_their_artifacts() -> None:
    maker = branched([0])
    for step in maker.chain["steps"]:
        step.pop("artifact_ids")
    with pytest.raises(ReplayError, match="4 steps have the index 2 of its model, and 0"):
        maker.load()
    maker = branched([0])
    maker.chain["steps"][1].pop("artifact_ids")
    with pytest.raises(ReplayError, match="do not name all their artifacts"):
        maker.load()


def test_a_second_model_before_the_chain_s_own_is_not_run() -> None:
    maker = ChainMaker().step(Shifted(1.0)).model(Voter(1, [1]), params={"model": {"class": "x.Y"}}).model(Sum())
    assert total(maker) == 2.0


def test_a_model_that_feeds_another_is_refused() -> None:
    maker = ChainMaker().step(Shifted(1.0), params={"model": {"class": "x.Y"}}).model(Sum())
    with pytest.raises(ReplayError, match="second model"):
        maker.load()


# -- sources ------------------------------------------------------------------------------------


def two_sources(source_map: Any = None) -> ChainMaker:
    maker = ChainMaker().step(Shifted(1.0), Shifted(10.0)).model(Sum())
    ids = maker.chain["shared_artifacts"]["1"]
    maker.chain["shared_artifacts"]["_source_map"] = source_map or {"1": {"0": ids[:1], "1": ids[1:]}}
    return maker


def test_each_source_has_its_own_operators_and_the_model_gets_all() -> None:
    plan = two_sources().load()
    assert plan.n_sources == 2
    assert execute(plan, [np.zeros((1, 2)), np.zeros((1, 3))]).tolist() == [32.0]


@pytest.mark.parametrize(("source", "expected"), [(0, 2.0), (1, 20.0)])
def test_a_chain_of_one_source_takes_only_that_one(source: int, expected: float) -> None:
    maker = two_sources()
    maker.chain["source_index"] = source
    assert total(maker) == expected
    assert maker.predict([np.full((1, 2), 0.0)] * 2).tolist() == [expected]


def test_a_source_index_without_a_map_chooses_among_the_arrays() -> None:
    maker = ChainMaker().step(Shifted(1.0)).model(Sum())
    maker.chain["source_index"] = 1
    assert maker.predict([np.zeros((1, 2)), np.full((1, 2), 5.0)]).tolist() == [12.0]


@pytest.mark.parametrize(
    "source_map",
    [
        {"1": {"0": ["a0"]}, "9": {"1": ["a1"]}},
        {"1": {"0": ["a0"], "1": ["zz"]}},
        {"1": {"0": ["a0", "a1"], "1": ["a1"]}},
    ],
)
def test_a_map_that_does_not_place_every_artifact_is_refused(source_map: Any) -> None:
    with pytest.raises(ReplayError, match="which of its 2 artifacts belong to which of 2 sources"):
        two_sources(source_map).load()


def test_a_source_that_the_chain_does_not_have_is_refused() -> None:
    maker = two_sources()
    maker.chain["source_index"] = 2
    with pytest.raises(ReplayError, match="source_index 2 is not one of its 2 sources"):
        maker.load()


# -- feature augmentation -----------------------------------------------------------------------


def augmented(action: str | None, *listed: Any) -> ChainMaker:
    params: dict[str, Any] = {"feature_augmentation": list(listed)} | ({"action": action} if action else {})
    return ChainMaker().step(Shifted(1.0), Shifted(10.0), params=params)


@pytest.mark.parametrize("action", ["extend", "add", None])
def test_augmentation_appends_channels_to_the_spectra(action: str | None) -> None:
    maker = augmented(action, "a.A", None, {"class": "b.B", "params": {}}).model(Sum())
    assert isinstance(maker.load().steps[0], AugmentationStep)
    assert maker.predict(np.zeros((1, 1))).tolist() == [11.0]


def test_steps_after_an_augmentation_run_one_operator_a_channel() -> None:
    maker = augmented("extend", "a.A", "b.B").step(Shifted(0.5), Shifted(0.25), Shifted(0.125)).model(Sum())
    assert maker.predict(np.zeros((1, 1))).tolist() == [11.875]
    wrong = augmented("extend", "a.A", "b.B").step(Shifted(0.5), Shifted(0.25)).model(Sum())
    with pytest.raises(ReplayError, match=r"step 2 .* has 2 artifacts for 3 channels"):
        wrong.predict(np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("action", "listed", "named"),
    [
        ("extend", ["a.A"], "2 artifacts for 1 operations"),
        ("extend", [["a.A", "b.B"]], "nests operators"),
        ("add", [{"concat_transform": []}], "nests operators"),
        ("wrong", ["a.A", "b.B"], "unknown action 'wrong'"),
    ],
)
def test_an_augmentation_whose_order_is_not_stored_is_refused(action: str, listed: list[Any], named: str) -> None:
    with pytest.raises(ReplayError, match=named):
        augmented(action, *listed).model(Sum()).predict(np.zeros((1, 1)))
