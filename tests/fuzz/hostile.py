"""Kinds of hostile inputs, each made from dice and read as a user's calls read it; errors of ours are what may come.

What takes long is made once in a folder, and stores stay open over many inputs: an input costs about as much as reading
it does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
from msgspec import msgpack
from mutations import X, Y, changed, changed_json, models, mutated, mutated_bundle, stored
from tricks import tricks

from n4a_fast import PipelineLibrary, WorkspaceStore, inspect_bundle
from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.artifacts.trust import trust
from n4a_fast.errors import StoreError
from n4a_fast.log import record
from n4a_fast.replay.serve import persisted
from n4a_fast.schema.versions import FORMAT_VERSION

MODES: dict[str, Any] = {"none": "none", "list": ["nothing.of.This"], "default": "workspace"}
_READ_BY_ONE_STORE = 100  # inputs, before it is made anew


@cache
def tried(mark: Path) -> tuple[bytes, ...]:
    """The tricks but for the largest, which take seconds to make."""
    return tuple(tricks(str(mark)).values())[:90]


def use(model: Any) -> None:
    """What a replay does with an object, whose own errors are its own."""
    for method in ("predict", "transform", "predict_proba", "decision_function", "random"):
        with suppress(Exception):
            getattr(model, method)(3 if method == "random" else X)


def an_artifact(dice: random.Random, mode: Any, root: Path) -> None:
    origins = tried(root / "mark") if dice.random() < 0.1 else stored()
    data = mutated(dice.choice(origins), dice)
    with suppress(StoreError):
        contents_of(data)
    with suppress(StoreError):
        use(trust(mode).loads("a", data, "joblib", "imported"))


# -- bundles -----------------------------------------------------------------------------


@cache
def bundles(root: Path) -> tuple[bytes, ...]:
    """Bundles of this package: a scaler and a model for each fold; SNV and PLS; classes; support vectors."""
    from chemotools.scatter import StandardNormalVariate
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    three = np.digitize(Y, [0.3, 0.6])
    chains = (
        (StandardScaler().fit(X), models()[0], models()[3]),
        (StandardNormalVariate().fit(X), models()[0]),
        (None, LogisticRegression().fit(X, three)),
        (StandardScaler().fit(X), SVR().fit(X, Y)),
    )
    with WorkspaceStore(root / "origin") as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        return tuple(_exported(store, pipeline, root / f"{n}.n4a", *chain) for n, chain in enumerate(chains))


def _exported(store: WorkspaceStore, pipeline: str, path: Path, scaler: Any, *of_folds: Any) -> bytes:
    saved = [store.save_artifact(model, "Model", "model", "joblib") for model in of_folds]
    folds = {f"fold_{n}": artifact for n, artifact in enumerate(saved)}
    steps: list[dict[str, Any]] = []
    shared: dict[str, list[str]] = {}
    if scaler is not None:
        shared["1"] = [store.save_artifact(scaler, "Scaler", "transformer", "joblib")]
        steps.append({"step_idx": 1, "operator_class": "Scaler", "params": {}, "artifact_id": shared["1"][0]})
    steps.append({"step_idx": len(steps) + 1, "operator_class": "Model", "params": {}})
    chain = store.save_chain(pipeline, steps, len(steps), "Model", "", "per_fold", folds, shared)
    return Path(store.export_chain(chain, path)).read_bytes()


_open: dict[tuple[Path, str], tuple[WorkspaceStore, list[int]]] = {}


@contextmanager
def standing(root: Path, what: str, mode: Any) -> Any:
    """A store that serves many inputs, made anew in time, and after an error that is not ours."""
    key = (root, f"{what}-{mode}")
    if key not in _open:
        place = root / f"standing-{len(_open)}-{what}-{mode if isinstance(mode, str) else 'list'}"
        shutil.rmtree(place, ignore_errors=True)
        _open[key] = WorkspaceStore(place, trusted=mode), [0]
    store, uses = _open[key]
    uses[0] += 1
    try:
        yield store
    except StoreError:
        pass
    except BaseException:
        uses[0] = _READ_BY_ONE_STORE
        raise
    finally:
        if uses[0] >= _READ_BY_ONE_STORE:
            del _open[key]
            with suppress(StoreError):
                store.close()


def a_mutated_bundle(dice: random.Random, mode: Any, root: Path) -> None:
    path = root / "mutated.n4a"
    path.write_bytes(mutated_bundle(dice.choice(bundles(root)), dice))
    with suppress(StoreError):
        inspect_bundle(path)
    with standing(root, "bundles", mode) as store:
        store.replay_chain(store.import_chain(path), X)


# -- compiled chains ---------------------------------------------------------------------


@cache
def compiled(root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of compiled chains and of their arrays, as a store has written them."""
    with WorkspaceStore(root / "compiled") as store:
        for number, _ in enumerate(bundles(root)):
            store.replay_chain(store.import_chain(root / f"{number}.n4a"), X)
    with duckdb.connect(str(root / "compiled" / "store.duckdb"), read_only=True) as connection:
        chains, arrays = (
            connection.sql(f"FROM {name}").to_arrow_table() for name in ("compiled_chains", "compiled_arrays")
        )
    assert len(chains) >= 3
    return chains.to_pylist(), arrays.to_pylist()


def a_compiled_chain(dice: random.Random, _mode: Any, root: Path) -> None:
    """A row of `compiled_chains` and those of `compiled_arrays` that a stranger wrote, with the right digest."""
    chains, arrays = compiled(root)
    row, others = dict(dice.choice(chains)), [dict(each) for each in arrays]
    victim = dice.randrange(4)
    if victim == 0:
        row["weights"] = _spoilt(row["weights"], dice)
    elif victim == 1:
        row["intercept"] = _spoilt(row["intercept"], dice)
    elif victim == 2:
        spoilt = dice.choice(others)
        spoilt["array_values"] = _spoilt(spoilt["array_values"], dice)
        spoilt["width"] = dice.choice([spoilt["width"], 0, 1, 3, 2**31 - 1])
    row["recipe"] = _recipe(row, dice, victim == 3)
    read = pa.table({name: [row[name]] for name in ("chain_id", "made_with", "recipe")})
    for name in ("weights", "intercept"):
        read = read.append_column(name, pa.array([row[name]], pa.list_(pa.float64())))
    listed = pa.table(
        {
            "content_hash": [each["content_hash"] for each in others],
            "array_values": pa.array([each["array_values"] for each in others], pa.list_(pa.float64())),
            "width": pa.array([each["width"] for each in others], pa.int64()),
        }
    )
    found = persisted._arrays(listed)
    centers = {name: array[0] for name, array in found.items()}
    for each in persisted._rows(read):
        if (chain := persisted._restored(each, found, centers)) is not None:
            rows = np.ascontiguousarray(X[:, : chain.width])  # what is left of the spectra where it is used
            for soft in (False, True):
                if chain.answers(soft) and chain.width == rows.shape[1]:
                    chain.answer(rows, soft)


def _spoilt(values: list[float], dice: random.Random) -> list[Any]:
    found: list[Any] = list(values)
    kind = dice.randrange(4)
    if kind == 0:
        return found[: dice.randrange(len(found) + 1)]
    if kind == 1:
        return found + found[: dice.randrange(8)]
    if kind == 2:
        return found * dice.choice([0, 2, 3, 100])
    if found:
        found[dice.randrange(len(found))] = dice.choice([float("nan"), float("inf"), 1e308, -1e308, None, 0.0])
    return found


def _recipe(row: dict[str, Any], dice: random.Random, spoil: bool) -> str:
    """The recipe, spoilt or not, with the digest of what there is."""
    told = changed(orjson.loads(row["recipe"]), dice) if spoil else orjson.loads(row["recipe"])
    if dice.random() < 0.9:
        arrays = [np.array(row[name], dtype=float) for name in ("weights", "intercept")]
        told["digest"] = persisted._digest(*arrays)
    return orjson.dumps(told, default=str).decode()


def a_compiled_file(dice: random.Random, mode: Any, root: Path) -> None:
    """The same in a store file, which is then replayed."""
    compiled(root)
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root / "compiled", copy)
    value = dice.choice(["[]", "[1.0]", "list_value(1e308, NULL)", "NULL", "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]"])
    with duckdb.connect(str(copy / "store.duckdb")) as connection:
        ((text,),) = connection.execute("SELECT recipe FROM compiled_chains LIMIT 1").fetchall()
        recipe = orjson.dumps(changed(orjson.loads(text), dice), default=str).decode()
        changes: list[tuple[str, list[Any]]] = [
            (f"UPDATE compiled_chains SET weights = {value}", []),
            (f"UPDATE compiled_chains SET intercept = {value}", []),
            ("UPDATE compiled_chains SET recipe = ?", [recipe]),
            (f"UPDATE compiled_chains SET {dice.choice(['recipe', 'made_with', 'arrays', 'sources'])} = NULL", []),
            (f"UPDATE compiled_arrays SET array_values = {value}", []),
            ("UPDATE compiled_arrays SET width = ?", [dice.choice([-1, 0, 1, 7, None, 2**31 - 1])]),
            ("UPDATE compiled_chains SET arrays = [NULL]", []),
            ("DELETE FROM compiled_arrays", []),
        ]
        connection.execute(*dice.choice(changes))
    with suppress(StoreError), WorkspaceStore(copy, trusted=mode) as store:
        for chain in store.sql("SELECT chain_id FROM chains")["chain_id"]:
            with suppress(StoreError):
                store.replay_chain(chain, X)
        store.verify()


# -- templates ---------------------------------------------------------------------------


def a_template(dice: random.Random, _mode: Any, root: Path) -> None:
    library = PipelineLibrary(root / "library")
    folder = library.save_template({"steps": [{"class": "sklearn.preprocessing.StandardScaler"}]}, "t", overwrite=True)
    victim = folder / dice.choice(["pipeline.json", "metadata.json"])
    data = victim.read_bytes()
    victim.write_bytes(changed_json(data, dice) if dice.random() < 0.5 else mutated(data, dice))
    for call in (
        lambda: library.load_template("t"),
        lambda: library.list_templates(tags=["a"], search="b"),
        lambda: library.import_template(folder, "c", True),
        lambda: library.get_template_metadata("t"),
    ):
        with suppress(StoreError):
            call()
    shutil.rmtree(root / "library")


# -- logs and workspaces -----------------------------------------------------------------

_KILLED = """
import os, signal, sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
chain = store.import_chain(sys.argv[2])
pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
store.log_step(pipeline, 1, "M", "end")
of_model = ("d", "M", "M")
told = (0.1, 0.2, 0.3, "rmse", "regression", 3, 6, {"val": {"rmse": 0.1}}, {}, None, None, 0, 0.0)
for fold in ("0", "1"):
    saved = store.save_prediction(pipeline, chain, *of_model, fold, "val", *told)
    store.save_prediction_arrays(saved, [1.0, 2.0, 3.0], [1.0, 2.0, 3.5], sample_indices=[0, 1, 2])
store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""  # ends without closing, so that its log stays


@cache
def killed(root: Path) -> Path:
    """A workspace with a log that nobody has put in its tables."""
    bundles(root)
    place = root / "killed"
    if not place.exists():
        told = subprocess.run(
            [sys.executable, "-c", _KILLED, str(place), str(root / "0.n4a")], capture_output=True, check=False
        )
        assert told.returncode == -signal.SIGKILL, told.stderr
    return place


@cache
def contents(root: Path) -> tuple[bytes, ...]:
    """What the records of that log hold."""
    (path,) = killed(root).glob("store.duckdb.log-*")
    return tuple(each.content for each in record.read_after(path, 0, record.store_of(path), complete=True))


def a_log(dice: random.Random, mode: Any, root: Path) -> None:
    """Records with the right checksums, and other contents, in the log of a process that has ended."""
    listed = contents(root)
    with standing(root, "logs", mode) as store:
        database = store._open().database
        session = "".join(dice.choice("0123456789abcdef") for _ in range(32))
        session = f"{session[:8]}-{session[8:12]}-7{session[13:16]}-8{session[17:20]}-{session[20:]}"
        path = database.path.with_name(f"store.duckdb.log-{session}")
        victim, spoilt = dice.randrange(len(listed)), b""
        for number, content in enumerate(listed, start=1):
            if number == victim + 1:
                content = (
                    msgpack.encode(changed(msgpack.decode(content), dice), enc_hook=str)
                    if dice.random() < 0.8
                    else mutated(content, dice)
                )
            spoilt += record.encoded(number, content, FORMAT_VERSION, database.identity.store_id)
        path.write_bytes(mutated(spoilt, dice) if dice.random() < 0.1 else spoilt)
        try:
            look(store)
        finally:
            path.unlink(missing_ok=True)


def look(store: WorkspaceStore) -> None:
    """What a user looks at first."""
    calls: tuple[Callable[[], Any], ...] = (
        store.list_runs,
        lambda: store.top_predictions(5),
        store.leaderboard,
        lambda: store.load_arrays(store.query_predictions(limit=2)["prediction_id"].to_list()),
        lambda: [store.get_chain(name) for name in store.sql("SELECT chain_id FROM chains LIMIT 2")["chain_id"]],
    )
    for call in calls:
        with suppress(StoreError):
            call()


def a_workspace(dice: random.Random, mode: Any, root: Path) -> None:
    """A store file, its log, or what lies beside it, damaged."""
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(killed(root), copy)
    victim = dice.choice(sorted(file for file in copy.iterdir() if file.is_file() and file.stat().st_size))
    victim.write_bytes(mutated(victim.read_bytes(), dice))
    with suppress(StoreError), WorkspaceStore(copy, trusted=mode, lock_timeout=5) as store:
        look(store)
        for chain in store.sql("SELECT chain_id FROM chains")["chain_id"]:
            store.replay_chain(chain, X)


def a_faulty_reader(dice: random.Random, _mode: Any, root: Path) -> None:
    """What must never happen, to see that it would be told."""
    kind = dice.randrange(4)
    if kind == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 1:
        raise KeyError("not ours")
    if kind == 2:
        (root / "mark").touch()


# how to read one, and how many of a thousand inputs are of the kind
KINDS: dict[str, tuple[Callable[[random.Random, Any, Path], None], int]] = {
    "artifact": (an_artifact, 690),
    "bundle": (a_mutated_bundle, 60),
    "compiled chain": (a_compiled_chain, 150),
    "compiled file": (a_compiled_file, 3),
    "template": (a_template, 60),
    "log": (a_log, 30),
    "workspace": (a_workspace, 7),
    "faulty": (a_faulty_reader, 0),
}
