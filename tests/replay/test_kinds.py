"""What a stored step is: told from its words, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from replay_chains import ChainMaker, Shifted
from sklearn.preprocessing import StandardScaler

from n4a_fast.errors import ReplayError
from n4a_fast.replay.plan.kinds import kind_of
from n4a_fast.replay.plan.replay_plan import Place

PLACE = Place("c1", 2, "X")


def kind(step: dict[str, Any], has_artifacts: bool = True) -> str:
    return kind_of({"step_idx": 2, "operator_class": "X", "params": {}, **step}, PLACE, has_artifacts)


@pytest.mark.parametrize(
    "words",
    [
        {"kind": "y_processing"},
        {"operator_type": "y_processing"},
        {"y_processing": "sklearn.preprocessing.StandardScaler"},
        {"params": {"y_processing": {"class": "sklearn.preprocessing._data.StandardScaler"}}},
        {"params": {"y_processing": ["a.A", "b.B"]}},
    ],
)
def test_a_target_step_may_be_written_in_these_ways(words: dict[str, Any]) -> None:
    assert kind(words) == "y_processing"
    y = np.arange(10.0)[:, None]
    maker = ChainMaker().step(StandardScaler().fit(y), **words).model(Sum())
    np.testing.assert_allclose(maker.predict(np.zeros((1, 2))), [4.5])


class Sum:
    """A regression model that adds up the columns."""

    def predict(self, X: Any) -> Any:
        return X.sum(axis=1)


@pytest.mark.parametrize(
    "name",
    [
        "ShuffleSplit",
        "KFold",
        "StratifiedKFold",
        "sklearn.model_selection._split.RepeatedKFold",
        "LeaveOneOut",
        "KennardStoneSplitter",
        "SPXYGFold",
        "_FullTrainFoldSplitter",
        "GroupKFold",
        "chart_2d",
        "spectra_dist",
        "fold_chart",
        "fold_group",
        "dict",
        "config",
    ],
)
def test_steps_that_act_on_training_only_are_skipped_by_name(name: str) -> None:
    assert kind({"operator_class": name}, has_artifacts=False) == "skip"


@pytest.mark.parametrize("word", ["sample_augmentation", "sample_filter", "outlier_excluder", "splitter"])
def test_steps_that_act_on_training_only_are_skipped_by_their_word_even_with_artifacts(word: str) -> None:
    assert kind({"params": {word: {"transformers": []}}}) == "skip"
    maker = ChainMaker().step(Shifted(5.0), params={word: 1}).model(Sum())
    assert maker.predict(np.zeros((1, 1))).tolist() == [0.0]


def test_a_split_whose_class_is_no_transformer_is_skipped() -> None:
    maker = (
        ChainMaker()
        .step(name="sklearn.model_selection.PredefinedSplit")
        .step(name="replay_splitting.Halves")
        .model(Sum())
    )
    plan = maker.load(resolve=lambda name: type("Halves", (), {"split": None}))
    assert plan.steps == ()


@pytest.mark.parametrize(
    "words",
    [
        {"params": {word: 1}}
        for word in (
            "meta_model",
            "concat_transform",
            "merge",
            "merge_sources",
            "source_branch",
            "sample_partitioner",
            "branch",
        )
    ]
    + [{"operator_type": "merge"}, {"auto_transfer_preproc": {}}],
)
def test_steps_whose_effect_is_not_stored_are_refused(words: dict[str, Any]) -> None:
    for has_artifacts in (True, False):
        with pytest.raises(ReplayError, match=r"chain 'c1' cannot be replayed: step 2 \(X\)"):
            kind(words, has_artifacts)


def test_a_stacked_model_is_refused_although_it_is_the_chain_s_model() -> None:
    maker = ChainMaker().model(Sum(), params={"meta_model": {"class": "x.Y"}})
    with pytest.raises(ReplayError, match="stacked model"):
        maker.load()


def test_an_explicit_kind_wins_and_must_be_known() -> None:
    assert kind({"kind": "skip", "params": {"y_processing": 1}}) == "skip"
    assert kind({"kind": "transform", "operator_class": "KFold"}, has_artifacts=False) == "transform"
    with pytest.raises(ReplayError, match="unknown kind 'scale'; use one of transform"):
        kind({"kind": "scale"})


def test_a_step_that_a_variant_leaves_out_is_skipped() -> None:
    left_out = {"operator_class": "", "params": {}, "artifact_ids": [], "stateless": True}
    assert kind(left_out, has_artifacts=False) == "skip"
    assert (
        kind({**left_out, "stateless": False}, has_artifacts=False)
        == kind({"stateless": True}, has_artifacts=False)
        == "transform"
    )


def test_a_nameless_step_with_artifacts_is_refused() -> None:
    with pytest.raises(ReplayError, match="without saying what it is"):
        kind({"operator_class": "dict"})


@pytest.mark.parametrize(
    "words", [{}, {"operator_type": "transform"}, {"operator_type": "operator"}, {"params": {"preprocessing": "a.A"}}]
)
def test_anything_else_transforms_spectra(words: dict[str, Any]) -> None:
    assert kind(words) == "transform"
