"""A chain knows what it was trained on, tells it, takes it along, and refuses other spectra by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from replay_chains import WIDTH, spectra, target
from replay_stores import begin, put_chain
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from n4a_fast import ChainInput, WorkspaceStore
from n4a_fast.errors import InvalidInputError

pd = pytest.importorskip("pandas")

X = spectra(40)
Y = target(X)
NAMES = [str(9000 - 50 * place) for place in range(WIDTH)]
AXIS = [1100.0 + 2.5 * place for place in range(WIDTH)]


def named(store: WorkspaceStore, model: Any, scaled: bool) -> str:
    """A chain whose first operator was fitted on a table."""
    frame = pd.DataFrame(X, columns=NAMES)
    scaler = StandardScaler().set_output(transform="pandas").fit(frame)
    seen = scaler.transform(frame) if scaled else frame
    return put_chain(store, begin(store), [scaler] if scaled else [], [model.fit(seen, Y), model.fit(seen, Y)])


ALONE = pytest.mark.filterwarnings("ignore:X does not have valid feature names")


@ALONE
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("model", [PLSRegression(2), RandomForestRegressor(3, random_state=0)])
@pytest.mark.parametrize("library", [pd.DataFrame, lambda frame: pl.DataFrame(dict(frame.items()))])
def test_columns_are_known_by_name_and_never_read_by_position(
    store: WorkspaceStore, model: Any, scaled: bool, library: Any
) -> None:
    chain_id, frame = named(store, model, scaled), pd.DataFrame(X, columns=NAMES)
    expected = store.replay_chain(chain_id, X)
    close = {"rtol": 1e-12}  # the first replay of a chain and a compiled one round differently
    others = {
        "order": frame[frame.columns[::-1]],
        "same columns": frame.rename(columns={NAMES[3]: "8851"}),
        "same wavelengths|same columns": frame.assign(more=1.0),
    }
    for replay in (lambda T: store.replay_chain(chain_id, T), lambda T: store.replay_chains([chain_id], T)[0]):
        np.testing.assert_allclose(replay(library(frame)), expected, **close)
        for cure, other in others.items():
            with pytest.raises(InvalidInputError, match=cure):
                replay(library(other))


@ALONE
def test_each_chain_of_a_batch_is_asked_for_its_columns(store: WorkspaceStore) -> None:
    frame = pd.DataFrame(X, columns=NAMES)
    turned = frame[frame.columns[::-1]]
    pipeline = begin(store)
    one, other = (
        put_chain(store, pipeline, [StandardScaler().fit(table)], [Ridge().fit(X, Y)]) for table in (frame, turned)
    )
    for _ in range(2):
        store.replay_chains([one], frame)
        store.replay_chains([other], turned)
        with pytest.raises(InvalidInputError, match="order by name"):
            store.replay_chains([one, other], frame)


def test_names_that_were_only_counted_are_no_names(store: WorkspaceStore) -> None:
    chain_id = put_chain(store, begin(store), [], [Ridge().fit(pd.DataFrame(X), Y)])
    expected = store.replay_chain(chain_id, X)
    for table in (pd.DataFrame(X), pd.DataFrame(X, columns=NAMES)):
        np.testing.assert_array_equal(store.replay_chain(chain_id, table), expected)


def test_spectra_at_other_wavelengths_are_refused(store: WorkspaceStore) -> None:
    model = Ridge().fit(X, Y)
    pipeline = begin(store)
    facts = {"wavelengths": np.array(AXIS), "wavelength_unit": "nm", "targets": "protein", "target_unit": "%"}
    chain_id = put_chain(store, pipeline, [], [model], input=facts)
    shifted = np.array(AXIS) + 1.0
    expected = model.predict(X)
    np.testing.assert_allclose(store.replay_chain(chain_id, X), expected)
    np.testing.assert_allclose(store.replay_chain(chain_id, X, np.array(AXIS)), expected)
    np.testing.assert_allclose(store.replay_chain(chain_id, pd.DataFrame(X, columns=AXIS)), expected)
    for replay in (store.replay_chain, lambda one, *given: store.replay_chains([one], *given)):
        with pytest.raises(InvalidInputError, match=r"wavelengths\[0\] is 1101, the chain was trained at 1100 nm"):
            replay(chain_id, X, shifted)
        with pytest.raises(InvalidInputError, match=r"column 0 of X is '1101.0', the chain was trained on 1100.0"):
            replay(chain_id, pd.DataFrame(X, columns=shifted))
        with pytest.raises(InvalidInputError, match=f"{WIDTH - 1} columns"):
            replay(chain_id, X[:, 1:])


def test_a_width_that_no_operator_knows_is_still_checked(store: WorkspaceStore) -> None:
    class Sums:
        def predict(self, spectra: Any) -> Any:
            return spectra.sum(axis=1)

    chain_id = put_chain(store, begin(store), [], [Sums()], input={"n_features": WIDTH})
    np.testing.assert_allclose(store.replay_chain(chain_id, X), X.sum(axis=1))
    with pytest.raises(InvalidInputError, match=f"X has {WIDTH - 1} columns, chain .* was fitted on {WIDTH}"):
        store.replay_chain(chain_id, X[:, 1:])


def test_a_class_past_64_bits_does_not_keep_the_store_from_closing(tmp_path: Path) -> None:
    model = Ridge().fit(X, Y)
    for _ in range(2):
        with WorkspaceStore(tmp_path) as store:
            chain_id = put_chain(store, begin(store), [], [model], input={"n_features": WIDTH, "classes": [2**70, 1]})
            np.testing.assert_allclose(store.replay_chain(chain_id, X), model.predict(X))
    with WorkspaceStore(tmp_path) as store:
        np.testing.assert_allclose(store.replay_chain(chain_id, X), model.predict(X))
        assert store.describe_chain(chain_id).input.classes == (2**70, 1)
        assert store.verify()


@ALONE
@pytest.mark.long
def test_what_is_known_is_described_and_travels_with_a_bundle(store: WorkspaceStore, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=NAMES)
    facts = ChainInput(wavelengths=tuple(map(float, NAMES)), wavelength_unit="cm-1", targets=("protein",))
    chain_id = put_chain(store, begin(store), [StandardScaler().fit(frame)], [Ridge().fit(X, Y)], input=facts)
    told = store.describe_chain(chain_id)
    assert told.input.n_features == WIDTH
    assert told.input.columns == tuple(NAMES)
    for word in (chain_id, "step 1 (StandardScaler)", "folds 0", "wavelengths 9000 to 8450 cm-1", "target protein"):
        assert word in str(told)
    path = store.export_chain(chain_id, tmp_path / "x.n4a")
    with WorkspaceStore(tmp_path / "other") as other:
        imported = other.import_chain(path)
        assert other.describe_chain(imported).input == told.input
        with pytest.raises(InvalidInputError, match="order by name"):
            other.replay_chain(imported, frame[frame.columns[::-1]])


def test_the_range_of_the_training_predictions_is_known(store: WorkspaceStore) -> None:
    pipeline = begin(store)
    chain_id = put_chain(store, pipeline, [], [Ridge().fit(X, Y)])
    columns = {"pipeline_id": pipeline, "chain_id": chain_id, "dataset_name": "d", "model_name": "m"}
    columns |= {"model_class": "m", "fold_id": "0", "partition": ["train", "val"]}
    store.save_predictions(columns, y_true=[Y, Y], y_pred=[Y, Y + 100.0])
    assert store.describe_chain(chain_id).input.prediction_range == (Y.min(), Y.max())


def test_classes_are_known_in_the_order_of_probabilities(store: WorkspaceStore) -> None:
    labels = np.where(np.median(Y) < Y, "high", "low")
    chain_id = put_chain(store, begin(store), [], [LogisticRegression().fit(X, labels)])
    assert store.describe_chain(chain_id).input.classes == ("high", "low")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"n_features": 3, "wavelengths": [1.0, 2.0]}, "different numbers of columns"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"wavelengths": [1.0, float("nan")]}, "finite"),
        ({"wavelength": [1.0]}, "must be a mapping of some of"),
        ({"prediction_range": (2, 1)}, "smallest, largest"),
        ({"classes": [object()]}, "texts or numbers"),
        ({"columns": "abc"}, "must be a list"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(store: WorkspaceStore, facts: Any, told: str) -> None:
    pipeline = begin(store)
    with pytest.raises(InvalidInputError, match=told):
        store.save_chain(pipeline, [], 0, "m", "", "", {}, {}, input=facts)
    assert store.get_chains_for_pipeline(pipeline).is_empty()
