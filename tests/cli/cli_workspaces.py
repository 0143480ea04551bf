"""What the tests of the command line share: a small workspace, and the program as a user runs it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from helpers import begin_pipeline, predict, save_chain
from sklearn.linear_model import Ridge
from typer.testing import CliRunner, Result

from n4a_fast import WorkspaceStore
from n4a_fast.cli import app

WIDTH = 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, WIDTH))
Y = X @ np.arange(1.0, WIDTH + 1)


def invoke(*arguments: object, columns: int | None = 80, stdin: str | None = None) -> Result:
    environment: dict[str, str | None] = {"COLUMNS": str(columns) if columns else None}
    for name in ("N4A_FAST_WORKSPACE", "NIRS4ALL_WORKSPACE", "N4A_FAST_FORMAT"):
        environment[name] = None
    words = [str(argument) for argument in arguments]
    with app.only(words):  # as when it is called
        return CliRunner().invoke(app, words, env=environment, input=stdin)


def as_json(name: str, *arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON document of a command, valid by its schema in the package."""
    result = invoke(*arguments, "--json", columns=None)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema"] == f"n4a_fast.{name}/1"
    validate(name, found)
    return found


def validate(name: str, found: dict[str, Any]) -> None:
    schema = json.loads((files("n4a_fast.cli") / "schemas" / f"{name}.json").read_text())
    jsonschema.validate(found, schema)


def make_workspace(place: Path) -> dict[str, str]:
    """A run of two ridge chains on spectra of five wavelengths, one failed pipeline, one that runs; ids by name."""
    with WorkspaceStore(place) as store:
        run = store.begin_run("nightly 1:100:1 [bold]x[/bold]", {"cv": 3}, [{"name": "corn"}], expected=10)
        ids = {"run": run}
        for name, alpha in (("good", 1e-6), ("poor", 100.0)):
            pipeline = begin_pipeline(store, run, name)
            models = [Ridge(alpha).fit(X[fold::3], Y[fold::3]) for fold in range(3)]
            saved = {
                f"fold_{fold}": store.save_artifact(model, "sklearn.linear_model.Ridge", "model", "joblib")
                for fold, model in enumerate(models)
            }
            step = {"step_idx": 1, "operator_class": "sklearn.linear_model.Ridge", "params": {"alpha": alpha}}
            chain = save_chain(store, pipeline, steps=[step], fold_artifacts=saved, model_class="Ridge")
            for fold, model in enumerate(models):
                rows = np.arange(20) % 3 != fold
                error = float(np.sqrt(np.mean((model.predict(X[rows]) - Y[rows]) ** 2)))
                saved_as = predict(
                    store, pipeline, chain, fold_id=str(fold), val_score=error, test_score=error, n_features=WIDTH,
                    n_samples=int(rows.sum()), model_name=name, model_class="sklearn.linear_model.Ridge",
                )  # fmt: skip
                store.save_prediction_arrays(saved_as, Y[rows], model.predict(X[rows]))
            store.log_step(pipeline, 1, "Ridge", "end", duration_ms=3, message="fitted\nwell", level="info")
            store.complete_pipeline(pipeline, error, error, "rmse", 5)
            ids |= {name: chain, f"{name} pipeline": pipeline, f"{name} prediction": saved_as}
        store.fail_pipeline(begin_pipeline(store, run, "broken"), "SVD did not converge")
        ids["running pipeline"] = begin_pipeline(store, run, "going on")
        other = store.begin_run("wheat harvest of 2026, instrument 3, after the change of its lamp", {}, [])
        store.fail_run(other, "KeyError: step:x:1 [red]gone[/red]")
        ids["failed run"] = other
    return ids
