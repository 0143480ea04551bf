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
kept = store.query_predictions()
print(kept["prediction_id"].to_list() == [prediction], store.load_arrays([prediction]).y_pred[0].tolist())
store.close()
with WorkspaceStore.open_readonly("my_sweep") as reader:
    print(reader.sql("SELECT count(*) AS n FROM prediction_arrays")["n"][0])
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
    assert "0.12" in ranking
    assert read == "True [1.1, 2.0, 2.9]\n1\n"
