"""Labels come out of the command line as they went into the store."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_workspaces import X, as_json, invoke
from sklearn.linear_model import LogisticRegression

from n4a_fast import WorkspaceStore

NAMES = ["oats", "rye"]
CODES = (X[:, 0] > 0).astype(int)
LABELS = np.array(NAMES)[CODES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside spectra a workspace `text` whose classifier knows labels, and `numbers` whose one knows their numbers."""
    place = tmp_path_factory.mktemp("labels")
    np.save(place / "new.npy", X)
    for name, y in (("text", LABELS), ("numbers", CODES)):
        with WorkspaceStore(place / name) as store:
            store.save_cross_validation(LogisticRegression(), X, y, cv=2, refit=False, dataset="grain")
            if name == "numbers":
                for saved in store.query_predictions()["prediction_id"]:
                    arrays = store.get_prediction_arrays(saved)
                    assert arrays is not None
                    store.save_prediction_arrays(saved, arrays["y_true"], arrays["y_pred"], classes=NAMES)
    return place


@pytest.mark.long
@pytest.mark.parametrize("name", ["text", "numbers"])
def test_every_command_prints_the_labels(made: Path, tmp_path: Path, name: str) -> None:
    predict = ("predict", made / name, "@best", made / "new.npy")
    told = list(csv.DictReader(io.StringIO(invoke(*predict, "--folds").stdout)))
    assert {row[head] for row in told for head in ("prediction", "prediction_fold_0")} == set(NAMES)
    assert np.mean([row["prediction"] == label for row, label in zip(told, LABELS, strict=True)]) > 0.9
    assert invoke(*predict, "--proba").stdout.splitlines()[0] == "id,p_oats,p_rye"
    with WorkspaceStore.open_readonly(made / name) as store:
        saved = store.query_predictions(partition="val")["prediction_id"][0]
    first = as_json("show", "show", made / name, saved)["arrays"]["y_true"]["first"]
    assert set(first) <= set(NAMES)
    assert first[0] in invoke("show", made / name, saved).stdout
    assert invoke("export", made / name, "--arrays", "-o", tmp_path / "all.parquet").exit_code == 0
    exported = pq.read_table(tmp_path / "all.parquet")["y_true_labels"].to_pylist()
    assert {label for row in exported for label in row} == set(NAMES)
    plot = ("plot", made / name, "confusion", "--data", tmp_path / "n.csv", "-o", tmp_path / "c.json")
    assert invoke(*plot).exit_code == 0
    told = list(csv.DictReader(io.StringIO((tmp_path / "n.csv").read_text())))
    assert {row["actual"] for row in told} == set(NAMES)
