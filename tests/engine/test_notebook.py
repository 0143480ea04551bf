"""In a notebook kernel, where DuckDB asks for widgets and stdout is the cell's output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from helpers import DEADLINE
from nbclient import NotebookClient

README = Path(__file__).parents[2] / "README.md"
LOOK = """
store = WorkspaceStore("my_sweep")
kept = store.query_predictions(partition="val")
print(kept.height, store.load_arrays(kept["prediction_id"].to_list()).y_pred[0].shape)
store.close()
with WorkspaceStore.open_readonly("my_sweep") as reader:
    print(reader.sql("SELECT count(*) AS n FROM pipelines")["n"][0])
"""
pytestmark = pytest.mark.filterwarnings("default")  # of the notebook's own packages
WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None"  # as where they are not installed


SHOWN = """
from n4a_fast import WorkspaceStore
import numpy as np
from sklearn.linear_model import Ridge
store = WorkspaceStore("shown")
X = np.random.default_rng(0).normal(size=(30, 4))
chain = store.save_cross_validation(Ridge(), X, X @ np.ones(4), cv=3, dataset="<b>corn</b>")
"""


# what is the last of a cell, and what is shown for it
OBJECTS = {
    "store": "predictions",
    "store.run()": "1 done, 0 failed",
    "store.leaderboard()": "rmse, lower is better",
    "store.load_arrays(chain_id=chain.chain_id, partition='val')": "shape of the first",
    "store.replay_plan(chain.chain_id, X)": "chain",
    "store.plot('scatter')": "<svg",
    "store.verify(quick=True)": "is sound",
    "store.backup('kept')": "verified",
    "store.vacuum()": "MB before",
    "store.report('r.html', charts=False)": "open it in any browser",
    "store.close(); store": "busy",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[nbformat.NotebookNode]:
    """Cells that ran in a new kernel; one that raises raises here, too."""
    example = README.read_text().split("```python\n")[1].split("```")[0]
    code = (WITHOUT_WIDGETS, example, LOOK, SHOWN, *OBJECTS)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in code])
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    seconds = {"timeout": int(DEADLINE), "startup_timeout": int(DEADLINE)}
    NotebookClient(notebook, **seconds, kernel_name="python3", resources=resources).execute()
    return list(notebook.cells)


def test_the_example_of_the_readme_runs_in_a_kernel_without_widgets(cells: list[nbformat.NotebookNode]) -> None:
    ranking, read = ("".join(output.get("text", "") for output in cell.outputs) for cell in cells[1:3])
    assert "corn · rmse, lower is better · 3 finished" in ranking
    assert read == "15 (24,)\n3\n"


def test_objects_show_themselves_in_a_kernel(cells: list[nbformat.NotebookNode]) -> None:
    for cell, expected in zip(cells[4:], OBJECTS.values(), strict=True):
        data = cell.outputs[-1]["data"]
        shown = data.get("text/html") or data["image/svg+xml"]
        assert expected in shown
        assert "<b>corn</b>" not in shown
        assert len(data["text/plain"]) > 10
        assert len(shown) < 200_000
