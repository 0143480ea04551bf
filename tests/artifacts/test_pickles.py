"""A pickle is looked into without importing, calling or making anything that it names."""

from __future__ import annotations

import collections
import io
import os
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import StandardScaler

from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.errors import InvalidInputError


class Writes:
    """Creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def dumped(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(obj, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_names_the_class_and_its_globals(protocol: int) -> None:
    found = contents_of(
        pickle.dumps(collections.OrderedDict(scaler=StandardScaler(), when=frozenset({1})), protocol=protocol)
    )
    assert found.class_name == "collections.OrderedDict"
    assert "sklearn.preprocessing._data.StandardScaler" in found.globals


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_with_arrays_between_the_opcodes(compress: Any) -> None:
    forest = RandomForestRegressor(n_estimators=3).fit(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    found = contents_of(dumped(forest, compress=compress))
    assert found.class_name == "sklearn.ensemble._forest.RandomForestRegressor"
    assert {"sklearn.tree._tree.Tree", "joblib.numpy_pickle.NumpyArrayWrapper"} <= set(found.globals)


def test_objects_inside_arrays_are_looked_into() -> None:
    found = contents_of(dumped({"a": np.array([collections.Counter("a"), None], dtype=object), "b": np.arange(3.0)}))
    assert "collections.Counter" in found.globals
    assert found.class_name == ""


def test_functions_by_value_name_what_makes_them() -> None:
    assert "cloudpickle.cloudpickle._make_function" in contents_of(cloudpickle.dumps(lambda: 1)).globals


@pytest.mark.parametrize("as_bytes", [pickle.dumps, dumped, cloudpickle.dumps])
def test_nothing_of_a_malicious_pickle_runs(tmp_path: Path, as_bytes: Any) -> None:
    found = contents_of(as_bytes(Writes(tmp_path / "made")))
    assert found.globals == (f"{os.name}.mkdir",)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"text", b"\x78\x9cbroken", pickle.dumps(StandardScaler())[:-20], b"\x80\x02\x82\x01.", b"\x80\x04Pid\n."],
)
def test_damaged_bytes_and_references_to_elsewhere_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="nothing was loaded"):
        contents_of(data)


def test_a_call_of_what_is_no_global_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="calls what is no global"):
        contents_of(b"\x80\x04\x8c\x04text)R.")
