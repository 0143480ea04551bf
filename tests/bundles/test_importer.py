"""Bundles of this package and of nirs4all become chains that predict what they predicted where they came from."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from bundle_chains import CASES, case, save, spectra
from helpers import count, counts, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSRegression
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, QuantileTransformer, StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.errors import BundleError, NotFoundError, ReadOnlyError

DATA = Path(__file__).parent.parent / "data" / "bundles"
X = np.load(DATA / "X.npy")
WITH_PREDICTIONS = sorted(path.stem for path in DATA.glob("*.npy") if path.stem != "X")


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, empty_workspace: Path
) -> Iterator[tuple[WorkspaceStore, WorkspaceStore, Path]]:
    """Two stores and a folder; bundles go from the first to the second."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("here", "there"):
        shutil.copytree(empty_workspace, folder / name)
    with WorkspaceStore(folder / "here") as here, WorkspaceStore(folder / "there") as there:
        yield here, there, folder


@pytest.mark.parametrize("name", CASES)
def test_a_chain_predicts_the_same_in_another_store(
    two: tuple[WorkspaceStore, WorkspaceStore, Path], name: str
) -> None:
    here, there, folder = two
    chain = save(here, *case(name))
    imported = there.import_chain(here.export_chain(chain, folder / f"{name}.n4a"))
    expected, found = here.replay_chain(chain, spectra()), there.replay_chain(imported, spectra())
    if expected.dtype.kind == "U":
        assert found.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


OPERATORS = (StandardScaler, MinMaxScaler, MaxAbsScaler, Normalizer, lambda: QuantileTransformer(n_quantiles=10))


@pytest.mark.long
@settings(max_examples=examples(15))
@given(
    steps=st.lists(st.lists(st.integers(0, len(OPERATORS) - 1), min_size=1, max_size=2), max_size=3),
    folds=st.lists(st.sampled_from(["0", "1", "2", "final"]), min_size=1, max_size=3, unique=True),
    target=st.booleans(),
    linear=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_chain_survives_the_way_to_another_store(
    two: tuple[WorkspaceStore, WorkspaceStore, Path],
    steps: list[list[int]],
    folds: list[str],
    target: bool,
    linear: bool,
    seed: int,
) -> None:
    here, there, folder = two
    rows = spectra(30, seed)
    fitted: list[tuple[str, Any]] = []
    for chosen in steps:
        operators = []
        for number in chosen:
            operators.append(OPERATORS[number]().fit(rows))
            rows = operators[-1].transform(rows)
        fitted.append(("transform", operators))
    y = rows[:, 0] + rows[:, 1] ** 2
    if target:
        fitted.append(("y_processing", StandardScaler().fit(y[:, None])))
    models = {
        fold: (Ridge(0.1) if linear else PLSRegression(2)).fit(rows[turn : turn + 25], y[turn : turn + 25])
        for turn, fold in enumerate(folds)
    }
    chain = save(here, fitted, models)
    imported = there.import_chain(here.export_chain(chain, folder / "any.n4a"))
    for choice in ("auto", folds):
        expected = here.replay_chain(chain, spectra(9, seed + 1), folds=choice)
        np.testing.assert_allclose(
            there.replay_chain(imported, spectra(9, seed + 1), folds=choice), expected, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", WITH_PREDICTIONS)
def test_bundles_of_nirs4all_predict_what_its_loader_did(
    two: tuple[WorkspaceStore, WorkspaceStore, Path], name: str
) -> None:
    store = two[1]
    chain = store.import_chain(DATA / f"{name}.n4a")
    np.testing.assert_allclose(
        store.replay_chain(chain, X).ravel(), np.load(DATA / f"{name}.npy"), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", ["plain-store-0.7.1", "refit-store-0.7.1"])
def test_bundles_of_the_0_7_store_work_though_its_own_loader_fails(
    two: tuple[WorkspaceStore, WorkspaceStore, Path], name: str
) -> None:
    store = two[1]
    twin = {"plain": "plain-result-0.7.1", "refit": "refit-result-1.4.10"}[
        name.partition("-")[0]
    ]  # the same pipeline with a loader that works
    chain = store.import_chain(DATA / f"{name}.n4a")
    np.testing.assert_allclose(store.replay_chain(chain, X).ravel(), np.load(DATA / f"{twin}.npy"), rtol=1e-9)


@pytest.mark.parametrize("name", ["augmented-result-1.4.10", "augmented-store-1.4.10"])
def test_augmented_features_are_kept_apart_as_in_training(
    two: tuple[WorkspaceStore, WorkspaceStore, Path], name: str
) -> None:
    store = two[1]
    with zipfile.ZipFile(DATA / f"{name}.n4a") as bundle:
        first, second, *scalers, one, two_ = [
            joblib.load(io.BytesIO(bundle.read(each))) for each in bundle.namelist() if each.startswith("artifacts/")
        ]
    channels = [X, first.transform(X), second.transform(X)]
    wide = np.hstack([scaler.transform(channel) for scaler, channel in zip(scalers, channels, strict=True)])
    expected = (one.predict(wide) + two_.predict(wide)) / 2
    np.testing.assert_allclose(store.replay_chain(store.import_chain(DATA / f"{name}.n4a"), X), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("augmented-result-0.7.1", "more than once"), ("augmented-store-0.7.1", "nothing in it says which")],
)
def test_bundles_that_do_not_say_what_belongs_where_are_refused(store: WorkspaceStore, name: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        store.import_chain(DATA / f"{name}.n4a")
    assert set(counts(store, "runs", "chains", "artifacts").values()) == {0}


def test_the_same_bundle_again_changes_nothing(store: WorkspaceStore) -> None:
    tables = ("runs", "pipelines", "chains", "artifacts")
    chain = store.import_chain(DATA / "plain-store-1.4.10.n4a")
    before = counts(store, *tables)
    assert store.import_chain(DATA / "plain-store-1.4.10.n4a") == chain
    assert counts(store, *tables) == before == {"runs": 1, "pipelines": 1, "chains": 1, "artifacts": 5}
    other = store.import_chain(DATA / "plain-result-1.4.10.n4a")
    assert other != chain
    assert store.import_chain(DATA / "plain-result-1.4.10.n4a") == other


@pytest.mark.parametrize("name", CASES)
def test_a_bundle_that_comes_home_is_the_chain_that_is_there(store: WorkspaceStore, tmp_path: Path, name: str) -> None:
    chain = save(store, *case(name))
    assert store.import_chain(store.export_chain(chain, tmp_path / "model.n4a")) == chain
    assert count(store, "chains") == 1


def test_an_id_that_another_chain_has_is_not_taken_over(store: WorkspaceStore, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "other") as other:
        bundle = other.export_chain(save(other, *case("folds")), tmp_path / "model.n4a")
    known = store.import_chain(bundle)
    changed = tmp_path / "changed.n4a"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "manifest.json":
                text = text.replace(b'"artifact_integrity"', b'"no_integrity"')
            new.writestr(name, text.replace(b"ShuffleSplit", b"KFold") if name == "chain.json" else text)
    second = store.import_chain(changed)
    assert second != known
    assert store.import_chain(changed) == second


def _changed(bundle: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The bundle with another content of the members that `name` ends, and no hashes to tell."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            content = change(content) if member.endswith(name) else content
            new.writestr(member, content.replace(b'"artifact_integrity"', b'"no_integrity"'))
    return target


@pytest.mark.parametrize("name", CASES)
def test_other_operators_under_known_ids_are_a_chain_of_their_own(
    store: WorkspaceStore, tmp_path: Path, name: str
) -> None:
    chain = save(store, *case(name))
    bundle = store.export_chain(chain, tmp_path / "model.n4a")
    with zipfile.ZipFile(bundle) as archive:
        model = [each for each in archive.namelist() if each.endswith(".joblib")][-1]
    other = DummyRegressor(strategy="constant", constant=7.0).fit([[0.0] * 6], [7.0])
    swapped = _changed(bundle, tmp_path / "other.n4a", model, lambda _: pickle.dumps(other))
    assert (imported := store.import_chain(swapped)) != chain
    assert store.import_chain(swapped) == imported
    assert store.import_chain(bundle) == chain
    used = {row["artifact_id"] for row in store.sql("SELECT artifact_id FROM artifacts").iter_rows(named=True)}
    loaded = [store.load_artifact(each) for each in used]
    assert sum(isinstance(each, DummyRegressor) for each in loaded) == 1


def test_the_known_chain_keeps_predicting_and_the_other_predicts_what_it_brought(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    chain = save(store, *case("refit"))
    before = store.replay_chain(chain, spectra())
    other = DummyRegressor(strategy="constant", constant=7.0).fit([[0.0] * 6], [7.0])
    bundle = _changed(
        store.export_chain(chain, tmp_path / "m.n4a"),
        tmp_path / "o.n4a",
        "foldfinal.joblib",
        lambda _: pickle.dumps(other),
    )
    assert (store.replay_chain(store.import_chain(bundle), spectra()) == 7.0).all()
    np.testing.assert_array_equal(store.replay_chain(chain, spectra()), before)


def test_operators_that_are_lost_here_come_back_with_the_bundle(store: WorkspaceStore, tmp_path: Path) -> None:
    chain = save(store, *case("folds"))
    expected = store.replay_chain(chain, spectra())
    bundle = store.export_chain(chain, tmp_path / "m.n4a")
    for file in (store.workspace_path / "artifacts").rglob("*.joblib"):
        file.unlink()
    np.testing.assert_allclose(store.replay_chain(store.import_chain(bundle), spectra()), expected)


def test_other_columns_under_a_known_id_are_a_chain_of_their_own(store: WorkspaceStore, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "other") as other:
        bundle = other.export_chain(save(other, *case("folds")), tmp_path / "m.n4a")
    known = store.import_chain(bundle)
    narrow = _changed(
        bundle, tmp_path / "n.n4a", "manifest.json", lambda text: text.replace(b'"n_features": 6', b'"n_features": 5')
    )
    assert store.import_chain(narrow) != known


def test_an_imported_chain_survives_and_goes_with_its_run(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "w") as store:
        chain = store.import_chain(DATA / "plain-store-1.4.10.n4a")
    with WorkspaceStore(tmp_path / "w") as store:
        row = store.get_chain(chain)
        assert row is not None
        assert (row["model_class"], row["preprocessings"], row["fold_strategy"]) == (
            "PLSRegression",
            "Normalizer>MinMax",
            "per_fold",
        )
        pipeline = store.get_pipeline(row["pipeline_id"])
        assert pipeline is not None
        assert pipeline["status"] == "completed"
        run = store.get_run(pipeline["run_id"])
        assert run is not None
        assert (run["config"]["imported_from"], run["status"]) == ("plain-store-1.4.10.n4a", "completed")
        store.delete_run(run["run_id"])
        assert count(store, "artifacts") == 0


def test_a_missing_file_and_a_store_for_reading_are_refused(store: WorkspaceStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no bundle '.*nobody\.n4a'; check the path"):
        store.import_chain(tmp_path / "nobody.n4a")
    with pytest.raises(BundleError, match="is a folder"):
        store.import_chain(tmp_path)
    with WorkspaceStore.open_readonly(store.workspace_path) as reader, pytest.raises(ReadOnlyError):
        reader.import_chain(DATA / "plain-store-1.4.10.n4a")
