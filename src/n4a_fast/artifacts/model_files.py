"""Models in the file formats of their own libraries, as nirs4all writes them: read, never written.

A format names the library that reads it. What a format does not say, such as whether boosted trees
classify, the class that was saved tells. numpy's, PyTorch's and Keras' readers are used in the modes
that run no code from the file. Nothing is imported before a file of its library is read.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any

from n4a_fast.artifacts import codec

Content = bytes | memoryview


def _numpy(data: bytes, _: str) -> Any:
    import numpy as np

    return np.load(io.BytesIO(data), allow_pickle=False)


def _torch(data: bytes, _: str) -> Any:
    import torch

    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _xgboost(data: bytes, class_name: str) -> Any:
    import xgboost

    return _loaded(getattr(xgboost, class_name, xgboost.Booster)(), "load_model", bytearray(data))


def _catboost(data: bytes, class_name: str) -> Any:
    import catboost

    return _loaded(getattr(catboost, class_name, catboost.CatBoost)(), "load_model", blob=data)


def _lightgbm(data: bytes, _: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=data.decode())


def _keras(data: bytes, _: str) -> Any:
    import keras

    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        file.write(data)
        file.flush()
        return keras.models.load_model(file.name, safe_mode=True)


def _loaded(model: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    getattr(model, method)(*args, **kwargs)
    return model


_READERS: dict[str, tuple[str, Callable[[bytes, str], Any]]] = {
    "numpy_npy": ("numpy", _numpy),
    "pytorch_state_dict": ("torch", _torch),
    "xgboost_json": ("xgboost", _xgboost),
    "xgboost_ubj": ("xgboost", _xgboost),
    "catboost_cbm": ("catboost", _catboost),
    "lightgbm_txt": ("lightgbm", _lightgbm),
    "tensorflow_keras": ("keras", _keras),
}


def library_of(format_name: str) -> str | None:
    """The library that reads files of this format; None for formats that are pickles, or unknown."""
    return _READERS[format_name][0] if format_name in _READERS else None


def check_readable(format_name: str) -> None:
    """InvalidInputError unless this is a format that can be loaded, a pickle's or a library's own."""
    if format_name not in _READERS:
        codec.check_format(format_name)


def load(data: Content, format_name: str, operator_class: str) -> Any:
    """The model in verified `data`, as an object of its class where that is one of the library's; ImportError without
    the library.
    """
    return _READERS[format_name][1](bytes(data), operator_class.rpartition(".")[2])
