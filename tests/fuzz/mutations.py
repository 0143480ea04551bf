"""Fitted models, and what spoils them: bytes changed, archives and JSON with values that do not belong there."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
from tricks import as_joblib

np.random.seed(0)  # models are fitted alike each time
RNG = np.random.default_rng(0)
X, Y = RNG.random((30, 6)), RNG.random(30)
INTERESTING = (0, 1, 2, 127, 128, 255)
OTHERS: tuple[Any, ...] = (
    *(None, -1, 0, 2**40, 2**63, "", "x", [], {}, [[]], "os.system", 1e308, float("nan"), 0.5, True, b"\xff"),
    {"class": "subprocess.Popen", "params": {"args": "x"}},
)


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


def mutated_bundle(data: bytes, dice: random.Random) -> bytes:
    """The archive damaged, or one of its members changed inside a whole archive without hashes."""
    if dice.random() < 0.2:
        return mutated(data, dice)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, "w") as target:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        victim = dice.choice(list(members))
        members[victim] = (
            changed_json(members[victim], dice) if victim.endswith(".json") else mutated(members[victim], dice)
        )
        if victim != "manifest.json":
            manifest = json.loads(members["manifest.json"])
            manifest.pop("artifact_integrity", None)
            members["manifest.json"] = json.dumps(manifest).encode()
        for name, content in members.items():
            target.writestr(name, content)
    return written.getvalue()


def changed_json(data: bytes, dice: random.Random) -> bytes:
    """A JSON text with some values replaced, also by what other formats do not hold."""
    return json.dumps(changed(json.loads(data), dice, (*OTHERS, 2**70, "\ud800")), default=str).encode()


def changed(found: Any, dice: random.Random, others: tuple[Any, ...] = OTHERS) -> Any:
    """Some values within lists and dicts, which it changes, replaced by others that do not belong there."""
    for _ in range(dice.choice([1, 1, 3])):
        place = found
        while isinstance(place, dict | list) and place:
            key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
            if dice.random() < 0.3 or not isinstance(place[key], dict | list) or not place[key]:
                if isinstance(place, dict) and dice.random() < 0.1:
                    del place[key]
                else:
                    place[key] = deepcopy(dice.choice(others))
                break
            place = place[key]
    return found
