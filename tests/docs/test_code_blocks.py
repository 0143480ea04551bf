"""The Python of the pages runs, as it is written, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from n4a_fast import WorkspaceStore

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# what these pages show takes files, a package or processes that are not here; other tests run the same calls
ELSEWHERE = {
    "migration.md": "integrations/test_conversion.py",
    "nirs4all.md": "integrations/test_install.py",
    "processes.md": "processes/test_clusters.py",  # the page itself, as a program
}
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
X = np.random.default_rng(0).normal(size=(60, 40))


def blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def nothing() -> dict[str, Any]:
    return {}


def stored_chains() -> dict[str, Any]:
    """A workspace with two chains of classifiers and two of regressors, and what the pages call their own."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV

    store, y = WorkspaceStore("given"), X[:, 0] + 0.1 * X[:, 1]
    labels = (y > 0).astype(int)
    chains = [store.save_cross_validation(LogisticRegression(C=C), X, labels, dataset="sorts") for C in (0.1, 1.0)]
    for alpha in (0.1, 1.0):
        store.save_cross_validation(Ridge(alpha=alpha), X, y, dataset="corn")
    return {
        "np": np,
        "store": store,
        "X": X,
        "y": y,
        "chain_ids": [chain.chain_id for chain in chains],
        "chain_id": chains[0].chain_id,
        "grid_search": GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}).fit(X, y),
    }


class MyFilter:
    def fit(self, X: Any, y: Any = None) -> Any:
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X) * 2.0


class MyScaler(MyFilter):
    factor_ = np.ones(40)


class MyModel:
    coef_, clip = np.ones((1, 40)), False

    def fit(self, X: Any, y: Any) -> Any:
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X) @ self.coef_.T


def replayed() -> dict[str, Any]:
    """Chains, spectra in files, and operators of the user's own."""
    given = stored_chains()
    np.save("spectra.npy", X)
    pq.write_table(pa.table({str(900.0 + column): X[:, column] for column in range(X.shape[1])}), "spectra.parquet")
    return {
        **given,
        "read": np.load,
        "files": ["spectra.npy"],
        "n_chains": len(given["chain_ids"]),
        "n_samples": len(X),
        **{kind.__name__: kind for kind in (MyFilter, MyScaler, MyModel)},
    }


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": nothing,
    "looking.md": stored_chains,
    "replay.md": replayed,
}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in GIVEN], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", **GIVEN[page.name]()}
    for number, block in enumerate(found := blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    assert found, f"{page.name} has no Python; take it out of GIVEN"
    if "store" in names:
        names["store"].close()


def test_no_page_with_python_is_left_out() -> None:
    assert {page.name for page in PAGES if blocks(page)} == {*GIVEN, *ELSEWHERE}
    assert all((ROOT / "tests" / test).is_file() for test in ELSEWHERE.values())
