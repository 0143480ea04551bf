"""Objects to bytes and back, in the two documented formats.

Both are uncompressed pickle protocol 5: zlib cost two thirds of a save and gained 4 % of the
size. `joblib` files open with `joblib.load` anywhere; `cloudpickle` files, which also take
lambdas and local classes, with `pickle.load` where cloudpickle is installed.
Loading runs code that the file names: callers verify the content first.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle
import joblib

from n4a_fast.errors import InvalidInputError

EXTENSIONS = {"joblib": "joblib", "cloudpickle": "pkl", "pickle": "pkl"}


def check_format(name: str) -> None:
    """InvalidInputError unless `name` is a format that can be loaded."""
    if name not in EXTENSIONS:
        raise InvalidInputError(f"format {name!r} is unknown; use one of {', '.join(EXTENSIONS)}")


def dumps(obj: Any, format_name: str) -> bytes:
    """The bytes of `obj`; InvalidInputError when it cannot be pickled."""
    check_format(format_name)
    try:
        if format_name == "joblib":
            buffer = io.BytesIO()
            joblib.dump(obj, buffer, compress=0, protocol=5)
            return buffer.getvalue()
        dump = cloudpickle.dumps if format_name == "cloudpickle" else pickle.dumps
        return bytes(dump(obj, protocol=5))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        cure = "; format='cloudpickle' also takes lambdas and local classes" if format_name != "cloudpickle" else ""
        raise InvalidInputError(f"{type(obj).__name__} cannot be saved as {format_name} ({error}){cure}") from error


def loads(data: bytes | memoryview, format_name: str) -> Any:
    """The object that `dumps`, or nirs4all, wrote as `data`; this runs the code that the pickle names."""
    if format_name == "joblib":
        return joblib.load(io.BytesIO(data))
    return pickle.loads(data)
