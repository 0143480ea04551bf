"""The tutorials of the documentation site run, and say what their texts say of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a tutorial in a folder of its own, where it leaves nothing; what it has named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(name: str) -> dict[str, Any]:
        mpl.use("agg")
        with threadpool_limits(limits=1):
            named = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        mpl.pyplot.close("all")
        assert list(tmp_path.iterdir()) == []
        assert not Path(named["folder"].name).exists()
        return named

    return run


def test_a_first_sweep(tutorial: Any, capsys: pytest.CaptureFixture[str]) -> None:
    named = tutorial("1_first_sweep")
    assert named["X"].shape == (21, len(named["wavenumbers"]))
    told = capsys.readouterr().out
    assert "fermentation · r2, higher is better · 15 finished" in told
    assert told.count("SavitzkyGolay") > 3  # the derivative is best


def test_predicted_against_measured(tutorial: Any) -> None:
    named = tutorial("2_predicted_against_measured")
    assert sorted(named["rows"]) == list(range(21))  # each sample was held out once
    assert np.array_equal(named["measured"], named["y"][named["rows"]])
    assert r2_score(named["measured"], named["predicted"]) > 0.9
    assert set(named["true"]) == set(named["labels"])
    assert np.mean(named["true"] == named["found"]) > 0.9


def test_new_spectra(tutorial: Any, capsys: pytest.CaptureFixture[str]) -> None:
    named = tutorial("3_new_spectra")
    assert named["predicted"].shape == (5, 1626)
    at_samples = np.interp(named["hplc"]["time"], named["hours"], named["predicted"][0])
    assert np.corrcoef(named["hplc"]["glucose"], at_samples)[0, 1] > 0.9  # there is an offset between the two methods
    assert "fused" in capsys.readouterr().out


def test_a_job_array_and_its_shards(tutorial: Any, capsys: pytest.CaptureFixture[str]) -> None:
    named = tutorial("4_job_array_and_shards")
    assert named["best"].height == 3
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["['task_0', 'task_1', 'task_2']", "0 pipelines in the workspace"]
    assert told[2:4] == ["24 predictions from 3 shards", "0 by a second merge"]


def test_every_tutorial_is_run_here() -> None:
    run = ["1_first_sweep", "2_predicted_against_measured", "3_new_spectra", "4_job_array_and_shards"]
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == [*run, "job_array"]
