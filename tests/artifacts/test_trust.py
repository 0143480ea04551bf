"""What a pickle may import: by where it came from, by a list of modules, or nothing at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.artifacts import codec
from n4a_fast.artifacts.trust import trust
from n4a_fast.errors import ArtifactCorruptError, InvalidInputError, UntrustedArtifactError

RNG = np.random.default_rng(0)
X, Y = RNG.random((30, 6)), RNG.random(30)
MODELS = [
    make_pipeline(StandardScaler(), SelectKBest(f_regression, k=4), PLSRegression(2)).fit(X, Y),
    RandomForestRegressor(3).fit(X, Y),
    FunctionTransformer(np.log1p).fit(X),
    {
        "rows": X,
        "names": np.array(["a", None], dtype=object),
        "set": {1, 2},
        "rng": np.random.default_rng(1),
        "scalar": np.float32(2),
    },
]


class Runs:
    """Calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def as_joblib(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(obj, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("setting", ["none", ["sklearn", "numpy"], "workspace"])
@pytest.mark.parametrize(
    "write",
    [
        as_joblib,
        pickle.dumps,
        lambda obj: as_joblib(obj, compress=3),
        lambda obj: as_joblib(np.array([obj], dtype=object)),
    ],
)
def test_a_malicious_pickle_does_not_run(tmp_path: Path, setting: Any, write: Any) -> None:
    made = tmp_path / "made"
    for evil in (
        Runs(os.mkdir, str(made)),
        Runs(eval, f"__import__('os').mkdir({str(made)!r})"),
        Runs(json.codecs.open, str(made), "w"),
    ):
        with pytest.raises(UntrustedArtifactError, match="imports"):
            trust(setting).loads("evil", write(evil), "joblib", "imported")
    assert not made.exists()


def test_a_known_package_does_not_offer_what_it_imported_or_what_opens_files(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for path in (b"sklearn.datasets._base\nos.mkdir", b"numpy\nmemmap", b"numpy\nload"):
        evil = b"\x80\x04c" + path + b"\n(V" + str(made).encode() + b"\nVw+\ntR."
        with pytest.raises(UntrustedArtifactError):
            trust("workspace").loads("evil", evil, "pickle", "imported")
    with pytest.raises(UntrustedArtifactError):
        trust(["sklearn"]).loads("evil", b"\x80\x04csklearn.utils.fixes\nplatform\n.", "pickle", "saved")
    assert not made.exists()


@pytest.mark.parametrize("number", range(len(MODELS)))
@pytest.mark.parametrize(
    "write", [lambda obj: codec.dumps(obj, "joblib"), as_joblib, lambda obj: as_joblib(obj, compress=("lzma", 1))]
)
def test_models_of_known_packages_load_though_they_were_imported(number: int, write: Any) -> None:
    model, data = MODELS[number], write(MODELS[number])
    for setting in ("workspace", ["sklearn", "numpy"]):
        loaded = trust(setting).loads("a", data, "joblib", "imported")
        if isinstance(model, dict):
            assert loaded["names"].tolist() == ["a", None]
            assert np.array_equal(loaded["rows"], X)
        else:
            run = "predict" if hasattr(model, "predict") else "transform"
            assert np.array_equal(getattr(loaded, run)(X), getattr(model, run)(X))


def test_imports_load_less_than_what_this_workspace_saved(tmp_path: Path) -> None:
    path = f"{type(Path()).__module__}.{type(Path()).__name__}"  # not the same in every Python, nor on every system
    with WorkspaceStore(tmp_path) as store:
        own = store.save_artifact(Path("here"), "Path", "note", "pickle")
        foreign = store._open().artifacts.save_bytes(
            pickle.dumps(Path("there")), "Path", "note", "pickle", origin="imported"
        )
        assert store.load_artifact(own) == Path("here")
        with pytest.raises(UntrustedArtifactError, match=re.escape(f"{path}, which trusted='workspace'")) as caught:
            store.load_artifact(foreign)
        assert caught.value.global_name == path
        assert caught.value.artifact_id == foreign
        store.flush()
    with WorkspaceStore(tmp_path, trusted=[path]) as store:
        assert store.load_artifact(foreign) == Path("there")
    with WorkspaceStore(tmp_path) as store:
        same = store.save_artifact(Path("there"), "Path", "note", "pickle")
        assert store.describe_artifact(same).origin == "saved"
        assert store.load_artifact(same) == Path("there")


def test_nothing_is_unpickled_under_none_not_even_for_a_replay(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        saved = store.save_artifact(StandardScaler().fit(X), "StandardScaler", "transformer", "joblib")
    with WorkspaceStore(tmp_path, trusted="none") as store:
        for load in (store.load_artifact, store.shared_artifact):
            with pytest.raises(UntrustedArtifactError, match="'none'"):
                load(saved)
        assert store.describe_artifact(saved).class_name == "sklearn.preprocessing._data.StandardScaler"
        assert store.verify_artifacts()


def test_a_list_holds_for_what_this_workspace_saved_too(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, trusted=["sklearn", "numpy"]) as store:
        scaler = store.save_artifact(StandardScaler().fit(X), "StandardScaler", "transformer", "joblib")
        path = store.save_artifact(Path("x"), "Path", "note", "pickle")
        assert np.array_equal(store.load_artifact(scaler).mean_, X.mean(axis=0))
        with pytest.raises(UntrustedArtifactError, match="pathlib"):
            store.load_artifact(path)


def test_none_refuses_what_is_no_pickle_too() -> None:
    for data in (b"", b"no pickle", pickle.dumps([1])):
        with pytest.raises(UntrustedArtifactError):
            trust("none").loads("a", data, "joblib", "saved")


@pytest.mark.parametrize("wrong", ["", "sklearn", [], [""], ["a b"], [1], None, 3])
def test_a_wrong_setting_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="trusted must be"):
        WorkspaceStore(tmp_path, trusted=wrong)


def test_stores_on_one_folder_share_what_they_trust(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as default, WorkspaceStore(tmp_path, trusted="none"):
        saved = default.save_artifact([1], "list", "note", "pickle")
        with pytest.raises(UntrustedArtifactError):
            default.load_artifact(saved)
        with pytest.raises(InvalidInputError, match="open with trusted='none'"):
            WorkspaceStore(tmp_path, trusted=["sklearn"])
    with WorkspaceStore(tmp_path) as default, WorkspaceStore(tmp_path, trusted=["sklearn"]) as store:
        assert store.load_artifact(saved) == default.load_artifact(saved) == [1]
        store.close()
        WorkspaceStore(tmp_path, trusted="none").close()  # what a closed store asked for is forgotten
        assert default.load_artifact(saved) == [1]


def test_damaged_bytes_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        saved = store.save_artifact([1], "list", "note", "pickle")
        store.get_artifact_path(saved).write_bytes(pickle.dumps(Runs(os.mkdir, str(tmp_path / "made"))))
        for call in (store.load_artifact, store.describe_artifact, store.shared_artifact):
            with pytest.raises(ArtifactCorruptError):
                call(saved)
    assert not (tmp_path / "made").exists()
