"""Pickles that try to run or break something: each creates the file MARK names if any part of it is run."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import zlib
from typing import Any

import cloudpickle
import joblib
import numpy as np


class Reduced:
    """Pickles as a call of what it is given."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw if len(raw) < 256 else b"X" + len(raw).to_bytes(4, "little") + raw


def named(path: str, split: int = 1) -> bytes:
    """A global on the stack; `split`: how many of the dotted parts at the end are its name."""
    parts = path.split(".")
    return text(".".join(parts[:-split])) + text(".".join(parts[-split:])) + b"\x93"


def called(path: str, *arguments: bytes, split: int = 1) -> bytes:
    return named(path, split) + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def as_joblib(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(obj, buffer, **options)
    return buffer.getvalue()


def object_in_disguise() -> bytes:
    """A record whose field is an object, while the record's flags say that it holds none: bytes become a pointer."""
    field = called("numpy.dtype", text("O8"), b"\x89", b"\x88")
    fields = b"}" + text("a") + field + b"K\x00\x86s"
    state = b"(K\x03" + text("|") + b"N" + text("a") + b"\x85" + fields + b"K\x08K\x01K\x00t"
    record = called("numpy.dtype", text("V8"), b"\x89", b"\x88") + state + b"b"
    array = called("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), b"K\x00\x85", b"C\x01b")
    return whole(array + b"(K\x01K\x01\x85" + record + b"\x89C\x08AAAAAAAAtb")


def far_field() -> bytes:
    """A record with a field far beyond its end."""
    plain = called("numpy.dtype", text("f8"), b"\x89", b"\x88")
    fields = b"}" + text("a") + plain + b"J\x00\x00\x00\x10\x86s"
    record = called("numpy.dtype", text("V8"), b"\x89", b"\x88")
    record += b"(K\x03" + text("|") + b"N" + text("a") + b"\x85" + fields + b"K\x08K\x01K\x00tb"
    array = called("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), b"K\x00\x85", b"C\x01b")
    return whole(array + b"(K\x01K\x01\x85" + record + b"\x89C\x08AAAAAAAAtb")


def array(shape: bytes, dtype: bytes, values: bytes, kind: str = "numpy.ndarray") -> bytes:
    """An array and its state."""
    made = called("numpy._core.multiarray._reconstruct", named(kind), b"K\x00\x85", b"C\x01b")
    return made + b"(K\x01" + shape + dtype + b"\x89" + values + b"tb"


def dtype(name: str, *state: bytes) -> bytes:
    """A type of values; its state as order, part, names, fields, size, alignment and flags."""
    made = called("numpy.dtype", text(name), b"\x89", b"\x88")
    return made + (b"(K\x03" + b"".join(state) + b"tb" if state else b"")


_ANY = b"J\xff\xff\xff\xff"
_OBJECTS = dtype("O8", text("|"), b"NNN", _ANY, _ANY, b"K\x3f")
_FLOATS = dtype("f8", text("<"), b"NNN", _ANY, _ANY, b"K\x00")


def on_faith() -> dict[str, bytes]:
    """States that native code would take as they are."""
    from sklearn.neighbors import KDTree

    tree = list(KDTree(np.arange(20.0).reshape(10, 2)).__getstate__())
    weighted, far = [*tree[:12], np.ones(1)], np.random.Philox(0).state | {"buffer_pos": -(10**6)}
    twister = np.random.MT19937(0).state
    twister["state"]["pos"] = 10**6
    long_ago = called("numpy.random._pickle.__randomstate_ctor", text("MT19937"))
    states = {"far": far, "twister": twister, "tree": (*tree[:11], None, None), "weighted": tuple(weighted)}
    written = {name: pickle.dumps(state, 3)[2:-1] for name, state in states.items()}
    space = named("sklearn.neighbors._kd_tree.KDTree") + b")\x81"
    record = b"}" + text("a") + _FLOATS + b"K\x00\x86s"
    short = b"]" + text("a") + b"a"
    frames = b"\x80\x04\x95" + (8).to_bytes(8, "little")
    return {
        "numpy, a short list of objects": whole(array(b"K\x64\x85", _OBJECTS, b"]")),
        "numpy, a short list in a matrix": whole(array(b"K\x64K\x64\x86", _OBJECTS, short, "numpy.matrix")),
        "numpy, objects from no list": whole(array(b"K\x01\x85", _OBJECTS, b"C\x08AAAAAAAA")),
        "numpy, objects in a tuple": whole(array(b"K\x01\x85", _OBJECTS, b"N\x85")),
        "numpy, objects without a flag": whole(
            array(b"K\x01\x85", dtype("O8", text("|"), b"NNN", _ANY, _ANY, b"K\x01"), b"C\x08AAAAAAAA")
        ),
        "numpy, objects with no flag at all": whole(
            array(b"K\x01\x85", dtype("O8", text("|"), b"NNN", _ANY, _ANY, b"K\x00"), b"C\x08AAAAAAAA")
        ),
        "numpy, numbers with every flag": whole(
            array(b"K\x64\x85", dtype("f8", text("<"), b"NNN", _ANY, _ANY, b"K\x3f"), b"]")
        ),
        "numpy, numbers of another size": whole(
            array(b"K\x01\x85", dtype("f8", text("<"), b"NNNK\x01", _ANY, b"K\x00"), b"C\x01A")
        ),
        "numpy, a name without a field": whole(
            dtype("V8", text("|"), b"N", text("b") + b"\x85", record, b"K\x08K\x01K\x10")
        ),
        "numpy, names that are none": whole(dtype("V8", text("|"), b"N", text("a"), record, b"K\x08K\x01K\x10")),
        "numpy, fields that are none": whole(
            dtype("V8", text("|"), b"N", text("a") + b"\x85", b"K\x01", b"K\x08K\x01K\x10")
        ),
        "numpy, a record of objects": whole(dtype("V8", text("|"), _OBJECTS + b"K\x01\x85\x86NNK\x08K\x01K\x3f")),
        "numpy, a type that is two": whole(called("numpy.dtype", text("f8,O"))),
        "numpy, an array that is two": whole(
            b"]\x94"
            + array(b"K\x01\x85", _FLOATS, b"C\x08AAAAAAAA")
            + b"(K\x01K\x01\x85"
            + _FLOATS
            + b"\x89C\x08BBBBBBBBtb"
        ),
        "numpy, a masked array from a short list": whole(
            called(
                "numpy.ma.core._mareconstruct",
                named("numpy.ma.MaskedArray"),
                named("numpy.ndarray"),
                b"K\x00\x85",
                b"C\x01b",
            )
            + b"(K\x01K\x64\x85"
            + _OBJECTS
            + b"\x89]C\x64"
            + bytes(100)
            + b"Ntb"
        ),
        "numpy, a masked array of objects": whole(
            called(
                "numpy.ma.core._mareconstruct",
                named("numpy.ma.MaskedArray"),
                named("numpy.ndarray"),
                b"K\x64\x85",
                _OBJECTS,
            )
        ),
        "numpy, a masked array of another class": whole(
            called(
                "numpy.ma.core._mareconstruct",
                named("sklearn.pipeline.Pipeline"),
                named("numpy.ndarray"),
                b"K\x00\x85",
                b"C\x01b",
            )
        ),
        "numpy, an array that is made large": whole(
            called("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), b"K\x64\x85", text("O"))
        ),
        "numpy, a generator far along, by its name": whole(long_ago + written["twister"] + b"b"),
        "numpy, a generator far before its beginning": whole(
            called("numpy.random._pickle.__bit_generator_ctor", text("Philox")) + written["far"] + b"b"
        ),
        "numpy, a generator that is made empty, far along": whole(
            named("numpy.random._mt19937.MT19937") + b")\x81" + written["twister"] + b"b"
        ),
        "a distance tree without a distance": whole(space + written["tree"] + b"b"),
        "a distance tree with few weights": whole(space + written["weighted"] + b"b"),
        "an opcode beyond the end of its frame": frames
        + b"X\x01\x00\x00\x00a0X\x02\x00\x00\x00os"
        + text("system")
        + b"\x93.",
        "a frame within a frame": frames + frames[2:] + b"NNNNNNNN" + b".",
        "a state in the place of a method": whole(
            named("sklearn.dummy.DummyRegressor")
            + b")\x81}"
            + text("__setstate__")
            + named("numpy.linalg.pinv")
            + b"sbNb"
        ),
        "a class among slots": whole(
            named("sklearn._loss.link.Interval")
            + b")\x81N}"
            + text("__class__")
            + named("sklearn.pipeline.Pipeline")
            + b"s\x86b"
        ),
        "an object that begins as a model": whole(
            called(
                "copyreg._reconstructor",
                named("sklearn.linear_model._ridge.Ridge"),
                named("sklearn.linear_model._ridge.Ridge"),
                b"K\x01",
            )
        ),
        "a set of what an object says": whole(called("builtins.set", named("sklearn.pipeline.Pipeline") + b")\x81")),
        "short objects, joblib": as_joblib(_Short()),
    }


class _Short:
    """Pickles, beside one of joblib's arrays, as an array whose list is too short."""

    def __reduce__(self) -> Any:
        made, arguments, state = np.array([None, 1], dtype=object).__reduce__()
        return made, arguments, (state[0], (1000,), state[2], False, [np.arange(3)])


def tricks(mark: str) -> dict[str, bytes]:
    """Every trick by name."""
    command, code = f"touch {mark}", f"import os; os.system('touch {mark}')"
    evil = Reduced(os.system, command)
    inner, objects = pickle.dumps(evil), np.array([evil], dtype=object)
    name = text(mark)
    found = {
        **{f"reduce, protocol {protocol}": pickle.dumps(evil, protocol) for protocol in range(6)},
        "posix.system": whole(called("posix.system", text(command))),
        "subprocess.Popen": whole(called("subprocess.Popen", b"]" + text("touch") + b"a" + name + b"a")),
        "builtins.eval": whole(called("builtins.eval", text(f"__import__('os').system({command!r})"))),
        "builtins.exec": whole(called("builtins.exec", text(code))),
        "builtins.compile": whole(called("builtins.compile", text(code), text("x"), text("exec"))),
        "builtins.open": whole(called("builtins.open", name, text("w"))),
        "builtins.__import__": whole(called("builtins.__import__", text("antigravity"))),
        "builtins.getattr": whole(called("builtins.getattr", named("os.path"), text("os"))),
        "builtins.setattr": whole(
            called("builtins.setattr", named("sklearn.linear_model._ridge.Ridge"), text("fit"), b"N")
        ),
        "builtins.map": whole(called("builtins.map", named("os.system"), text(command) + b"\x85")),
        "builtins.type": whole(called("builtins.type", text("X"), b")", b"}")),
        "__builtin__.eval": whole(called("__builtin__.eval", text(code))),
        "importlib.import_module": whole(called("importlib.import_module", text("this"))),
        "runpy.run_path": whole(called("runpy.run_path", name)),
        "codecs.open": whole(called("codecs.open", name, text("w"))),
        "_codecs.register": whole(called("_codecs.register", named("os.system"))),
        "_codecs.encode slow": whole(called("_codecs.encode", text("x" * 200), text("idna"))),
        "shutil.rmtree": whole(called("shutil.rmtree", name)),
        "pathlib.Path": whole(called("pathlib.PosixPath", name)),
        "tempfile": whole(called("tempfile.NamedTemporaryFile")),
        "functools.partial": whole(called("functools.partial", named("os.system"), text(command)) + b")R"),
        "functools.reduce": whole(called("functools.reduce", named("os.system"), text(command) + b"\x85")),
        "operator.attrgetter": whole(called("operator.attrgetter", text("system")) + named("os.path") + b"\x85R"),
        "operator.methodcaller": whole(called("operator.methodcaller", text("system"), text(command))),
        "itertools.starmap": whole(called("itertools.starmap", named("os.system"), text(command) + b"\x85\x85")),
        "types.FunctionType": whole(called("types.FunctionType", b"N", b"}")),
        "types.CodeType": whole(called("types.CodeType", b"N")),
        "ctypes": whole(called("ctypes.CDLL", text("libc.so.6"))),
        "weakref": whole(called("weakref.finalize", named("builtins.object"), named("os.system"), text(command))),
        "atexit": whole(called("atexit.register", named("os.system"), text(command))),
        "signal": whole(called("signal.signal", b"K\x0a", named("os.system"))),
        "threading.Timer": whole(called("threading.Timer", b"K\x00", named("os.system"), text(command) + b"\x85")),
        "copyreg.__newobj__": whole(called("copyreg.__newobj__", named("subprocess.Popen"), text(command))),
        "copyreg._reconstructor": whole(
            called("copyreg._reconstructor", named("subprocess.Popen"), named("builtins.object"), b"N")
        ),
        "copyreg.pickle": whole(called("copyreg.pickle", named("builtins.int"), named("os.system"))),
        "copyreg.add_extension": whole(called("copyreg.add_extension", text("os"), text("system"), b"K\x01")),
        "extension registry": b"\x80\x02\x82\x01.",
        "extension registry, long": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persistent id": b"\x80\x02Vos.system\nQ.",
        "persistent id as text": b"Pos.system\n.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "inst": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "newobj with keywords": whole(named("subprocess.Popen") + b")}" + text("args") + text(command) + b"s\x92"),
        "name with dots": whole(called("numpy.os.system", text(command), split=2)),
        "name with dots, of a known module": whole(called("sklearn.datasets._base.os.system", text(command), split=2)),
        "name with dots, of a class": whole(called("builtins.object.__subclasses__", split=2)),
        "escaped name": b"\x80\x04Vo\\u0073\nVsyst\\u0065m\n\x93" + text(command) + b"\x85R.",
        "joblib's array, escaped": b"\x80\x04Vjoblib\\u002enumpy_pickle\nVNumpyArrayWrapper\n\x93.",
        "memo": b"\x80\x04"
        + text("os")
        + b"\x94"
        + text("system")
        + b"\x9400h\x00h\x01\x93"
        + text(command)
        + b"\x85R.",
        "build on a class": whole(named("sklearn.linear_model._ridge.Ridge") + b"N}" + text("fit") + b"Ns\x86b"),
        "build on a function": whole(named("numpy.mean") + b"N}" + text("__doc__") + b"Ns\x86b"),
        "items into a class": whole(named("sklearn.linear_model._ridge.Ridge") + b"Na"),
        "items into a model": whole(named("sklearn.linear_model._ridge.Ridge") + b")\x81Na"),
        "call of a model": whole(named("sklearn.pipeline.Pipeline") + b")\x81)R"),
        "constructor of a model": whole(called("sklearn.linear_model._ridge.Ridge")),
        "cloudpickle, function": cloudpickle.dumps(eval(f"lambda: __import__('os').system({command!r})")),
        "cloudpickle, loads": whole(
            called("cloudpickle.cloudpickle.loads", b"B" + len(inner).to_bytes(4, "little") + inner)
        ),
        "cloudpickle, subimport": whole(called("cloudpickle.cloudpickle.subimport", text("this"))),
        "cloudpickle, types": whole(called("cloudpickle.cloudpickle._builtin_type", text("CodeType"))),
        "pickle.loads": whole(called("pickle.loads", b"B" + len(inner).to_bytes(4, "little") + inner)),
        "_pickle.loads": whole(called("_pickle.loads", b"B" + len(inner).to_bytes(4, "little") + inner)),
        "joblib.load": whole(called("joblib.numpy_pickle.load", name)),
        "joblib.Memory": whole(called("joblib.memory.Memory", name)),
        "joblib, objects": as_joblib(objects),
        "joblib, objects among arrays": as_joblib({"a": np.arange(3), "b": objects, "c": [evil]}),
        "joblib, zlib": as_joblib(objects, compress=3),
        "joblib, xz": as_joblib([np.arange(4), evil], compress=("xz", 1)),
        "gzip": gzip.compress(inner),
        "bz2": bz2.compress(inner),
        "lzma": lzma.compress(inner),
        "numpy, objects": pickle.dumps(objects),
        "numpy, objects in a scalar": whole(
            called("numpy._core.multiarray.scalar", called("numpy.dtype", text("O8")), b"C\x08AAAAAAAA")
        ),
        "numpy, objects in a buffer": whole(
            called(
                "numpy._core.numeric._frombuffer",
                b"C\x08AAAAAAAA",
                called("numpy.dtype", text("O8")),
                b"K\x01\x85",
                text("C"),
            )
        ),
        "numpy, objects in disguise": object_in_disguise(),
        "numpy, a field beyond the end": far_field(),
        "numpy.load": whole(called("numpy.load", name, b"N", b"\x88")),
        "numpy.memmap": whole(called("numpy.memmap", name, text("u1"), text("w+"), b"K\x00", b"K\x04\x85")),
        "numpy.savetxt": whole(called("numpy.savetxt", name, b"]")),
        "numpy.fromfile": whole(called("numpy.fromfile", text("/etc/hostname"), text("u1"))),
        "numpy.testing": whole(called("numpy.testing._private.utils.runstring", text(code), b"}")),
        "numpy.f2py": whole(called("numpy.f2py.crackfortran.myeval", text(code))),
        "numpy.vectorize": whole(called("numpy.vectorize", named("os.system")) + text(command) + b"\x85R"),
        "numpy.apply_along_axis": whole(called("numpy.apply_along_axis", named("os.system"), b"K\x00", b"]")),
        "numpy, a generator of anything": whole(
            called("numpy.random._pickle.__generator_ctor", text(command), named("os.system"))
        ),
        "numpy, a generator of a class": whole(
            called("numpy.random._pickle.__generator_ctor", text("x"), named("sklearn.pipeline.Pipeline"))
        ),
        "scipy.stats": pickle.dumps(_distribution(code)),
        "scipy.io": whole(called("scipy.io.loadmat", name)),
        "sklearn.utils": whole(called("sklearn.utils._testing.assert_run_python_script_without_output", text(code))),
        "sklearn.datasets": whole(called("sklearn.datasets._base.load_files", text("/etc"))),
        "sklearn.parallel": whole(
            called("sklearn.utils.parallel._FuncWrapper", named("os.system")) + text(command) + b"\x85R"
        ),
        "pandas.read_pickle": whole(called("pandas.io.pickle.read_pickle", name)),
        "pandas.eval": whole(called("pandas.core.computation.eval.eval", text(code))),
        "a function as a model's part": whole(
            named("sklearn.preprocessing._function_transformer.FunctionTransformer")
            + b")\x81}"
            + text("func")
            + named("os.system")
            + b"sb"
        ),
        "tree without nodes": whole(called("sklearn.tree._tree.Tree", b"K\x02", b"K\x01", b"J\xff\xff\xff\x7f")),
        "distance tree without points": whole(
            called("sklearn.neighbors._kd_tree.newObj", named("sklearn.neighbors._kd_tree.KDTree64"))
        ),
        "endless range": whole(called("builtins.set", called("builtins.range", b"J\xff\xff\xff\x7f"))),
        "huge array": whole(
            called(
                "numpy._core.multiarray._reconstruct",
                named("numpy.ndarray"),
                b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85",
                text("f8"),
            )
        ),
        "huge bytes": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "huge frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "huge integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "huge memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "many marks": b"\x80\x02" + b"(" * 100_000 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
        "deep tuples as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
        "deep tuples, joblib": b"\x80\x04" + text("joblib.numpy_pickle") + b"0}" + b")" + b"\x85" * 100_000 + b"Ns.",
        "no end": b"\x80\x04N",
        **on_faith(),
        "bomb": zlib.compress(b"\x80\x04B" + (2**31 - 4096).to_bytes(4, "little") + bytes(2**28)),
    }
    return found


def _distribution(code: str) -> Any:
    from scipy.stats._distn_infrastructure import rv_continuous

    state = {"_parse_arg_template": code, "name": "x", "a": 0, "b": 1, "shapes": None}
    return Reduced(rv_continuous, state=state)
