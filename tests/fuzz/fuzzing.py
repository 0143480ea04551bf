"""Hostile inputs by the thousand, each from its seed: `python tests/fuzz/fuzzing.py --inputs 100000`.

Mutated artifacts, bundles, compiled chains, templates, logs and workspaces are read in child processes, under "none",
a list and the default. A child that dies, hangs, runs what a file says, or raises what is no error of ours, is told
with the seed that makes the same input again: `--seed 4711 --inputs 1`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tricks import as_joblib, tricks

from n4a_fast import PipelineLibrary, WorkspaceStore, inspect_bundle
from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.artifacts.trust import trust
from n4a_fast.errors import StoreError

MODES: dict[str, Any] = {"none": "none", "list": ["nothing.of.This"], "default": "workspace"}
SECONDS = 60  # for one input, on a busy machine
MEMORY = 4 * 2**30
np.random.seed(0)  # models are fitted alike each time
RNG = np.random.default_rng(0)
X, Y = RNG.random((30, 6)), RNG.random(30)
INTERESTING = (0, 1, 2, 127, 128, 255)


@cache
def models() -> tuple[Any, ...]:
    """Fitted estimators whose arrays native code walks."""
    from sklearn import (
        ensemble,
        feature_selection,
        isotonic,
        linear_model,
        neighbors,
        pipeline,
        preprocessing,
        svm,
        tree,
    )
    from sklearn.cross_decomposition import PLSRegression

    three = np.digitize(Y, [0.3, 0.6])
    return (
        PLSRegression(2).fit(X, Y),
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()).fit(X, Y),
        tree.DecisionTreeRegressor(max_depth=3).fit(X, Y),
        ensemble.RandomForestRegressor(3, max_depth=3).fit(X, Y),
        ensemble.ExtraTreesClassifier(2, max_depth=3).fit(X, three),
        ensemble.GradientBoostingRegressor(n_estimators=2).fit(X, Y),
        ensemble.HistGradientBoostingRegressor(max_iter=2).fit(np.tile(X, (3, 1)), np.tile(Y, 3)),
        ensemble.HistGradientBoostingClassifier(max_iter=2).fit(np.tile(X, (3, 1)), np.tile(three, 3)),
        neighbors.KNeighborsRegressor(3, algorithm="kd_tree").fit(X, Y),
        neighbors.KNeighborsRegressor(3, algorithm="ball_tree").fit(X, Y),
        svm.SVR().fit(X, Y),
        svm.SVC().fit(X, three),
        pipeline.make_pipeline(preprocessing.SplineTransformer(), linear_model.Ridge()).fit(X, Y),
        pipeline.make_pipeline(preprocessing.KBinsDiscretizer(3), linear_model.Ridge()).fit(X, Y),
        pipeline.make_pipeline(
            feature_selection.SelectKBest(feature_selection.f_regression, k=3), linear_model.Ridge()
        ).fit(X, Y),
        isotonic.IsotonicRegression().fit(X[:, 0], Y),
        np.random.RandomState(0),
        {"rows": X, "names": np.array(["a", None], dtype=object), "kinds": {1, 2}},
    )


@cache
def stored() -> tuple[bytes, ...]:
    """The same as files."""
    written = [pickle.dumps(model, protocol) for model in models() for protocol in (4, 5)]
    return (*written, *map(as_joblib, models()), as_joblib(models()[2], compress=3))


@cache
def tried(mark: Path) -> tuple[bytes, ...]:
    """The tricks but for the largest, which take seconds to make."""
    return tuple(tricks(str(mark)).values())[:90]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bytes with a few of them changed, taken out, doubled, or put elsewhere."""
    found = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
        at = dice.randrange(max(len(found), 1))
        kind = dice.randrange(6)
        if kind == 0 or not found:
            found[at:at] = dice.randbytes(dice.choice([1, 2, 8]))
        elif kind == 1:
            found[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            found[at] = dice.choice(INTERESTING)
        elif kind == 3:
            del found[at : at + dice.choice([1, 2, 8, 64])]
        elif kind == 4:
            found[at : at + 8] = dice.choice([-1, 0, 2**31, 2**40, -(2**63)]).to_bytes(8, "little", signed=True)
        else:
            length = dice.choice([1, 4, 16])
            start = dice.randrange(len(found))
            found[at : at + length] = found[start : start + length]
    return bytes(found)


def use(model: Any) -> None:
    """What a replay does with an object, whose own errors are its own."""
    for method in ("predict", "transform", "predict_proba", "decision_function", "random"):
        try:
            if method == "random":
                model.random(3)
            else:
                getattr(model, method)(X)
        except Exception:
            continue


def an_artifact(dice: random.Random, mode: Any, root: Path) -> None:
    if dice.random() < 0.1:
        data = mutated(dice.choice(tried(root / "mark")), dice)
    else:
        data = mutated(dice.choice(stored()), dice)
    read = (lambda: contents_of(data), lambda: use(trust(mode).loads("a", data, "joblib", "imported")))
    for call in read:
        try:
            call()
        except StoreError:
            continue


@cache
def a_bundle(root: Path) -> bytes:
    """A bundle of this package with a scaler, and a model for each fold."""
    from sklearn.preprocessing import StandardScaler

    with WorkspaceStore(root / "origin") as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        scaler = store.save_artifact(StandardScaler().fit(X), "StandardScaler", "transformer", "joblib")
        folds = {f"fold_{n}": store.save_artifact(models()[n], "Model", "model", "joblib") for n in (0, 3)}
        steps = [
            {"step_idx": 1, "operator_class": "StandardScaler", "params": {}, "artifact_id": scaler},
            {"step_idx": 2, "operator_class": "Model", "params": {}},
        ]
        chain = store.save_chain(pipeline, steps, 2, "Model", "", "per_fold", folds, {"1": [scaler]})
        return store.export_chain(chain, root / "chain.n4a").read_bytes()


def mutated_bundle(data: bytes, dice: random.Random, target: Path) -> None:
    """The archive damaged, or its members changed inside a whole archive whose hashes are right."""
    if dice.random() < 0.2:
        target.write_bytes(mutated(data, dice))
        return
    import io

    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(target, "w") as written:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        victim = dice.choice(list(members))
        members[victim] = (
            _changed_json(members[victim], dice) if victim.endswith(".json") else mutated(members[victim], dice)
        )
        if victim != "manifest.json":
            manifest = json.loads(members["manifest.json"])
            manifest.pop("artifact_integrity", None)
            members["manifest.json"] = json.dumps(manifest).encode()
        for name, content in members.items():
            written.writestr(name, content)


def _changed_json(data: bytes, dice: random.Random) -> bytes:
    """Some values of a JSON text replaced by others that do not belong there."""
    others: tuple[Any, ...] = (
        None,
        -1,
        2**40,
        "",
        "x",
        [],
        {},
        [[]],
        "os.system",
        {"class": "subprocess.Popen", "params": {"args": "x"}},
        1e308,
        True,
    )
    found = json.loads(data)
    for _ in range(dice.choice([1, 1, 3])):
        place = found
        while isinstance(place, dict | list) and place:
            key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
            if dice.random() < 0.4 or not isinstance(place[key], dict | list) or not place[key]:
                place[key] = dice.choice(others)
                break
            place = place[key]
    return json.dumps(found).encode()


def a_mutated_bundle(dice: random.Random, mode: Any, root: Path) -> None:
    path = root / "mutated.n4a"
    shutil.rmtree(root / "taken", ignore_errors=True)
    mutated_bundle(a_bundle(root), dice, path)
    try:
        inspect_bundle(path)
    except StoreError:
        pass
    with WorkspaceStore(root / "taken", trusted=mode) as store:
        try:
            chain = store.import_chain(path)
            store.replay_chain(chain, X)
        except StoreError:
            pass
    shutil.rmtree(root / "taken")


def a_compiled_chain(dice: random.Random, _mode: Any, root: Path) -> None:
    """Rows of `compiled_chains` and `compiled_arrays` that a stranger wrote."""
    import duckdb

    place = root / "compiled"
    if not place.exists():
        with WorkspaceStore(place) as store:
            taken = store.import_chain(_linear_bundle(root))
            store.replay_chain(taken, X)
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    value = dice.choice(["[]", "[1.0]", "list_value(1e308, NULL)", "NULL", "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]"])
    recipe = _changed_json(duckdb_value(copy, "SELECT recipe FROM compiled_chains"), dice).decode().replace("'", "''")
    change = dice.choice(
        [
            f"UPDATE compiled_chains SET weights = {value}",
            f"UPDATE compiled_chains SET intercept = {value}",
            f"UPDATE compiled_chains SET recipe = '{recipe}'",
            f"UPDATE compiled_arrays SET array_values = {value}",
            f"UPDATE compiled_arrays SET width = {dice.choice([-1, 0, 1, 7, 2**31 - 1])}",
            "DELETE FROM compiled_arrays",
        ]
    )
    with duckdb.connect(str(copy / "store.duckdb")) as connection:
        connection.execute(change)
    try:
        with WorkspaceStore(copy) as store:
            chain = store.sql("SELECT chain_id FROM chains").item()
            store.replay_chain(chain, X)
    except StoreError:
        pass
    shutil.rmtree(copy)


def duckdb_value(root: Path, query: str) -> bytes:
    import duckdb

    with duckdb.connect(str(root / "store.duckdb"), read_only=True) as connection:
        return str(connection.execute(query).fetchall()[0][0]).encode()


@cache
def _linear_bundle(root: Path) -> Path:
    with WorkspaceStore(root / "linear") as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        model = store.save_artifact(models()[0], "PLS", "model", "joblib")
        steps = [{"step_idx": 1, "operator_class": "PLS", "params": {}}]
        chain = store.save_chain(pipeline, steps, 1, "PLS", "", "per_fold", {"fold_0": model}, {})
        return store.export_chain(chain, root / "linear.n4a")


def a_template(dice: random.Random, _mode: Any, root: Path) -> None:
    library = PipelineLibrary(root / "library")
    folder = library.save_template({"steps": [{"class": "sklearn.preprocessing.StandardScaler"}]}, "t", overwrite=True)
    victim = folder / dice.choice(["pipeline.json", "metadata.json"])
    data = victim.read_bytes()
    victim.write_bytes(_changed_json(data, dice) if dice.random() < 0.5 else mutated(data, dice))
    for call in (
        lambda: library.load_template("t"),
        library.list_templates,
        lambda: library.import_template(folder, "c", True),
        lambda: library.get_template_metadata("t"),
    ):
        try:
            call()
        except StoreError:
            pass
    shutil.rmtree(root / "library")


_KILLED = """
import os, signal, sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
store.import_chain(sys.argv[2])
store.log_step(store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h"), 1, "M", "end")
store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""  # ends without closing, so that its log stays


def a_workspace(dice: random.Random, mode: Any, root: Path) -> None:
    """A store file, its write-ahead log, or a log of this package, damaged."""
    place = root / "whole"
    if not place.exists():
        script = [sys.executable, "-c", _KILLED, str(place), str(_linear_bundle(root))]
        subprocess.run(script, check=False)
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    files = [file for file in copy.iterdir() if file.is_file() and file.stat().st_size]
    victim = dice.choice(files)
    victim.write_bytes(mutated(victim.read_bytes(), dice))
    try:
        with WorkspaceStore(copy, trusted=mode, lock_timeout=5) as store:
            for chain in store.sql("SELECT chain_id FROM chains")["chain_id"]:
                store.replay_chain(chain, X)
            store.list_runs()
    except StoreError:
        pass
    shutil.rmtree(copy)


def a_faulty_reader(dice: random.Random, _mode: Any, root: Path) -> None:
    """What must never happen, to see that it would be told."""
    kind = dice.randrange(4)
    if kind == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 1:
        raise KeyError("not ours")
    if kind == 2:
        (root / "mark").touch()


KINDS: dict[str, tuple[Callable[[random.Random, Any, Path], None], int]] = {
    "artifact": (an_artifact, 900),
    "bundle": (a_mutated_bundle, 40),
    "compiled chain": (a_compiled_chain, 8),
    "template": (a_template, 40),
    "workspace": (a_workspace, 12),
    "faulty": (a_faulty_reader, 0),
}


def one(seed: int, root: Path, only: str | None = None) -> None:
    """The input of a seed, read in one mode."""
    dice = random.Random(seed)
    kind = only or dice.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    KINDS[kind][0](dice, MODES[dice.choice(list(MODES))], root)


def read_all(seeds: range, root: Path, only: str | None) -> None:
    """Reads inputs until it is done, or killed; the seed of each is told before it is read."""
    told = os.dup(1)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    stored()
    for seed in seeds:
        os.write(told, f"{seed}\n".encode())
        signal.alarm(SECONDS)
        try:
            one(seed, root, only)
        except BaseException:
            text = " | ".join(traceback.format_exc().splitlines()[-7:])
            os.write(told, f"! {seed} raises {text}\n".encode(errors="replace"))
        if (root / "mark").exists():
            os.write(told, f"! {seed} RAN\n".encode())
            (root / "mark").unlink()
    os._exit(0)


def fuzz(seeds: range, only: str | None = None) -> list[str]:
    """What went wrong, by seed; inputs are read in a new process after each that has ended one."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        while seeds:
            root = tempfile.mkdtemp(dir=folder)
            command = [
                sys.executable,
                __file__,
                "--child",
                root,
                "--seed",
                str(seeds.start),
                "--inputs",
                str(len(seeds)),
            ]
            with subprocess.Popen([*command, *(("--only", only) if only else ())], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                last = seeds.start
                for line in child.stdout.read().decode(errors="replace").splitlines():
                    if line.startswith("!"):
                        wrong.append(line)
                    else:
                        last = int(line)
            if not child.returncode:
                break
            ended = "HANGS" if child.returncode == -signal.SIGALRM else f"DIED with {child.returncode}"
            wrong.append(f"! {last} {ended}")
            seeds = range(last + 1, seeds.stop)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--child", type=Path, help="read them here, in this folder")
    asked = parser.parse_args()
    asked_for = range(asked.seed, asked.seed + asked.inputs)
    if asked.child is not None:
        read_all(asked_for, asked.child, asked.only)
    began = time.monotonic()
    found = fuzz(asked_for, asked.only)
    print("\n".join(found))
    print(f"{asked.inputs} inputs from seed {asked.seed}: {len(found)} wrong, {time.monotonic() - began:.0f} s")
    sys.exit(bool(found))
