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
WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None"  # as where they are not installed


def printed(folder: Path, *cells: str) -> list[str]:
    """What each cell printed in a new kernel that works in `folder`; a cell that raises raises here, too."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=int(DEADLINE), kernel_name="python3", resources=resources).execute()
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]


@pytest.mark.filterwarnings("default")  # of the notebook's own packages
def test_the_example_of_the_readme_runs_in_a_kernel_without_widgets(tmp_path: Path) -> None:
    example = README.read_text().split("```python\n")[1].split("```")[0]
    _, ranking, read = printed(tmp_path, WITHOUT_WIDGETS, example, LOOK)
    assert "corn · rmse, lower is better · 3 finished" in ranking
    assert read == "15 (24,)\n3\n"


SHOWN = """
from n4a_fast import WorkspaceStore
import numpy as np
from sklearn.linear_model import Ridge
store = WorkspaceStore("shown")
X = np.random.default_rng(0).normal(size=(30, 4))
chain = store.save_cross_validation(Ridge(), X, X @ np.ones(4), cv=3, dataset="<b>corn</b>")
"""


@pytest.mark.filterwarnings("default")  # of the notebook's own packages
def test_objects_show_themselves_in_a_kernel(tmp_path: Path) -> None:
    cells = {
        "store": "predictions",
        "store.run()": "1 done, 0 failed",
        "store.leaderboard()": "rmse, lower is better",
        "store.load_arrays(chain_id=chain.chain_id, partition='val')": "shape of the first",
        "store.replay_plan(chain.chain_id, X)": "chain",
        "store.plot('scatter')": "<svg",
        "store.close(); store": "busy",
    }
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SHOWN, *cells)])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=int(DEADLINE), kernel_name="python3", resources=resources).execute()
    for cell, expected in zip(notebook.cells[1:], cells.values(), strict=True):
        data = cell.outputs[-1]["data"]
        shown = data.get("text/html") or data["image/svg+xml"]
        assert expected in shown
        assert "<b>corn</b>" not in shown
        assert len(data["text/plain"]) > 10
        assert len(shown) < 200_000
