"""What several test folders share: a small sweep, child processes, and plain DuckDB on the file.

Everything here is real: stores on disk, processes with their own interpreter, DuckDB itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from forked import can_fork, forked

from n4a_fast import WorkspaceStore

DEADLINE = 300.0  # seconds until a test gives up on a child process: a busy machine may be slow

# of the examples of a property test, so many are tried in each run of the tests; `make thorough` tries more
SHARE = float(os.environ.get("N4A_EXAMPLES", "0.3"))

IS_ROOT = getattr(os, "geteuid", lambda: -1)() == 0

PREDICTION: dict[str, Any] = {
    "dataset_name": "corn",
    "model_name": "PLS",
    "model_class": "sklearn.cross_decomposition.PLSRegression",
    "fold_id": "0",
    "partition": "val",
    "val_score": 0.1,
    "test_score": 0.2,
    "train_score": 0.05,
    "metric": "rmse",
    "task_type": "regression",
    "n_samples": 5,
    "n_features": 700,
    "scores": {"val": {"rmse": 0.1}},
    "best_params": {"n_components": 3},
    "branch_id": None,
    "branch_name": None,
    "exclusion_count": 0,
    "exclusion_rate": 0.0,
}


class Sweep(NamedTuple):
    """Ids of one run with one pipeline and one chain."""

    run: str
    pipeline: str
    chain: str


def examples(full: int) -> int:
    """How many of the examples of a property test are tried: never fewer than ten, unless there are fewer."""
    return max(min(full, 10), round(full * SHARE))


def begin_pipeline(store: WorkspaceStore, run: str, name: str = "0001_pls", dataset: str = "corn") -> str:
    return store.begin_pipeline(run, name, {"steps": ["SNV", "PLS"]}, [{"_or_": "SNV"}], dataset, "hash-of-" + dataset)


def save_chain(store: WorkspaceStore, pipeline: str, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "steps": [{"step_idx": 1, "operator_class": "SNV", "params": {}, "artifact_id": None, "stateless": True}],
        "model_step_idx": 1,
        "model_class": PREDICTION["model_class"],
        "preprocessings": "SNV",
        "fold_strategy": "per_fold",
        "fold_artifacts": {},
        "shared_artifacts": {},
    }
    return store.save_chain(pipeline, **{**fields, **changes})


def begin_sweep(store: WorkspaceStore, dataset: str = "corn") -> Sweep:
    run = store.begin_run("sweep", {"cv": 5}, [{"name": dataset, "path": f"/data/{dataset}.csv"}])
    pipeline = begin_pipeline(store, run, dataset=dataset)
    return Sweep(run, pipeline, save_chain(store, pipeline))


def predict(store: WorkspaceStore, pipeline: str, chain: str | None, **changes: Any) -> str:
    return store.save_prediction(pipeline, chain, **{**PREDICTION, **changes})  # type: ignore[arg-type]


def predict_with_arrays(store: WorkspaceStore, sweep: Sweep, shift: float = 0.0, **changes: Any) -> str:
    prediction = predict(store, sweep.pipeline, sweep.chain, **changes)
    store.save_prediction_arrays(prediction, np.arange(5.0), np.arange(5.0) + shift, None, np.arange(5), np.ones(5))
    return prediction


def predict_many(store: WorkspaceStore, pipeline: str, y_pred: Any) -> list[str]:
    """Predictions of a pipeline by one bulk call, one for each row of values."""
    columns = {name: PREDICTION[name] for name in ("dataset_name", "model_name", "model_class", "partition")}
    folds = [str(row) for row in range(len(y_pred))]
    return store.save_predictions({**columns, "pipeline_id": pipeline, "fold_id": folds}, y_pred=y_pred)


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, but for the file that stands for it on systems whose folders cannot be locked."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def count(store: WorkspaceStore, table: str) -> int:
    """How many rows a table has, what waits included; `sql()` would look at all functions of DuckDB first."""
    return int(store._open().database.rows(f"SELECT count(*) FROM {table}")[0][0])


def counts(store: WorkspaceStore, *tables: str) -> dict[str, int]:
    return {table: count(store, table) for table in tables}


def plain_rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows that any DuckDB client gets from the file, with nothing of this package."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def make_duckdb(path: Path, *statements: str) -> bytes:
    """A DuckDB file of someone else; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path.read_bytes()


@cache
def library(source: Path) -> Path:
    """A C file made for this machine, to be loaded before all other libraries; it goes with this process."""
    made = Path(_LIBRARIES.name) / source.with_suffix(".so").name
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


_LIBRARIES = tempfile.TemporaryDirectory(prefix="n4a_fast-libraries-")


def child(code: str, *arguments: Any) -> subprocess.Popen[str]:
    """A Python process that runs `code` with the helpers in reach; its stdin, stdout and stderr are text pipes."""
    return program("-c", *arguments, code=code)


def program(file: Path | str, *arguments: Any, code: str | None = None, **variables: str) -> subprocess.Popen[str]:
    """A Python process that runs a file, or `code`, with these variables in its environment; otherwise like `child`."""
    environment = {**os.environ, **variables}
    if can_fork(environment):
        text = Path(file).read_text() if code is None else code
        return forked(text, str(file), [*map(str, arguments)], environment)  # type: ignore[return-value]
    return started(file, *([] if code is None else [code]), *arguments, environment=environment)


def command_line(*words: Any, begin: str = "", **variables: str) -> subprocess.Popen[str]:
    """`python -m n4a_fast` with these words as a process of its own, which may `begin` with something else."""
    code = f"{begin}import runpy\nrunpy.run_module('n4a_fast', run_name='__main__', alter_sys=True)"
    return program("-c", *words, code=code, **variables)


def started(*arguments: Any, environment: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    """Like `child`, in a new interpreter, which has imported nothing: what Python is given after its own options."""
    environment = {**environment, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, arguments)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], timeout: float = DEADLINE) -> str:
    """What a child printed, once it has ended well."""
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors
    return output


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line of a child; an error with its last words if there is none."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate(timeout=DEADLINE)[1]
    return line.strip()


def kill(process: subprocess.Popen[str]) -> str:
    """`kill -9`, and what the child had printed after the lines already read."""
    process.kill()
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode in (-9, 1), errors  # Linux and macOS; Windows
    return output
