"""The sweep's arithmetic and what it stores, on the real spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n4a_fast import WorkspaceStore
from n4a_fast.cli.datasets import HOURS_PER_SPECTRUM, Dataset, load_coffee, load_fermentation
from n4a_fast.cli.sweep import Fitted, fit_variant, store_variant, variants_for

pytestmark = pytest.mark.long

FOLDS = 5


@pytest.fixture(scope="module", params=[load_fermentation, load_coffee], ids=["fermentation", "coffee"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    loaded: Dataset = request.param()
    return loaded


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> list[Fitted]:
    """What the first variants give."""
    return [fit_variant(dataset, variant, FOLDS) for variant in variants_for(dataset)[:3]]


def test_each_data_set_has_at_least_ten_different_variants(dataset: Dataset) -> None:
    names = [(variant.preprocessings, variant.model.label) for variant in variants_for(dataset)]
    assert len(names) >= 10
    assert len(set(names)) == len(names)


def test_spectra_are_finite_and_training_and_held_out_rows_are_distinct(dataset: Dataset) -> None:
    assert np.isfinite(dataset.X_train).all()
    assert np.isfinite(dataset.X_test).all()
    assert len(dataset.X_train) == len(dataset.y_train) == len(dataset.train_rows)
    assert len(dataset.X_test) == len(dataset.y_test) == len(dataset.test_rows)
    assert not (dataset.X_train[:, None, :] == dataset.X_test[None, :, :]).all(axis=2).any()


def test_each_hplc_sample_meets_the_spectrum_nearest_in_time() -> None:
    dataset = load_fermentation()
    assert dataset.course is not None
    distance = np.abs(dataset.test_rows * HOURS_PER_SPECTRUM - dataset.course.reference_hours)
    # half an interval; the last sample was taken while the instrument recorded nothing usable any more
    assert (distance[:-1] <= HOURS_PER_SPECTRUM / 2 + 1e-6).all()
    assert distance[-1] <= 2 * HOURS_PER_SPECTRUM
    assert (dataset.X_test.std(axis=1) > 0).all()


def test_held_out_coffees_are_of_every_country_in_equal_parts() -> None:
    dataset = load_coffee()
    assert dataset.classes == ("Brasil", "Ethiopia", "Vietnam")
    assert np.bincount(dataset.y_test).tolist() == [6, 6, 6]


def test_out_of_fold_predictions_cover_each_training_row_once(dataset: Dataset, fitted: list[Fitted]) -> None:
    for variant in fitted:
        (out_of_fold,) = (each for each in variant.predictions if (each.fold, each.partition) == ("avg", "val"))
        assert out_of_fold.rows.tolist() == dataset.train_rows.tolist()
        assert out_of_fold.y_true.tolist() == dataset.y_train.tolist()


def test_averaged_prediction_is_the_mean_of_the_folds(fitted: list[Fitted]) -> None:
    for variant in fitted:
        tests = {prediction.fold: prediction for prediction in variant.predictions if prediction.partition == "test"}
        average = tests.pop("avg")
        assert len(tests) == FOLDS
        if average.y_proba is None:
            np.testing.assert_allclose(average.y_pred, sum(part.y_pred for part in tests.values()) / FOLDS, rtol=1e-12)
        else:
            np.testing.assert_allclose(average.y_proba.sum(axis=1), 1.0, rtol=1e-9)
            assert (average.y_pred == average.y_proba.argmax(axis=1)).all()


def test_stored_variant_comes_back_with_every_fold_and_partition(tmp_path: Path, dataset: Dataset) -> None:
    variant = variants_for(dataset)[-1]
    with WorkspaceStore(tmp_path) as store:
        run_id = store.begin_run("test", {}, [{"name": dataset.name}])
        chain_id = store_variant(store, run_id, dataset, variant, 1, FOLDS)
        chain = store.get_chain(chain_id)
        predictions = store.query_predictions(run_id=run_id)
        pipeline = store.get_pipeline(predictions["pipeline_id"][0])
        log = store.get_pipeline_log(predictions["pipeline_id"][0])
        averaged = predictions.filter(fold_id="avg", partition="test")
        stored = store.get_prediction(averaged["prediction_id"][0], load_arrays=True)
    assert chain is not None
    assert pipeline is not None
    assert stored is not None
    assert len(chain["steps"]) == len(variant.transformers) + 1 == chain["model_step_idx"] == len(log)
    assert len(chain["fold_artifacts"]) == FOLDS
    assert len(predictions) == 3 * FOLDS + 2
    assert pipeline["status"] == "completed"
    expected = fit_variant(dataset, variant, FOLDS).predictions[-1]
    np.testing.assert_allclose(stored["y_pred"], expected.y_pred, rtol=1e-9)
    assert stored["sample_indices"].tolist() == dataset.test_rows.tolist()
    assert (stored["y_proba"] is not None) == bool(dataset.classes)


def test_variant_that_cannot_be_fitted_leaves_a_failed_pipeline_and_no_predictions(tmp_path: Path) -> None:
    dataset = load_fermentation()
    variant = variants_for(dataset)[0]
    with WorkspaceStore(tmp_path) as store:
        run_id = store.begin_run("test", {}, [{"name": dataset.name}])
        with pytest.raises(ValueError, match="splits"):
            store_variant(store, run_id, dataset, variant, 1, folds=len(dataset.y_train) + 1)
        pipelines = store.list_pipelines(run_id=run_id)
        assert pipelines["status"].to_list() == ["failed"]
        assert pipelines.select(pl.col("error").str.contains("splits")).item()
        assert len(store.query_predictions(run_id=run_id)) == 0
