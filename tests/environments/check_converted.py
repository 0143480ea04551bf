"""Converted workspaces in front of nirs4all itself: `check_converted.py PYTHON_WITH_1.4.10 [PYTHON_WITH_0.7.1]`.

A workspace of 1.4.10 goes into ours and back; nirs4all 1.4.10 must give the same answers, rankings and
predictions for the result as for the original, read-only and then writing to it. With a 0.7.1 at
hand, a sweep of it is migrated, its chains are replayed here, and written out for 1.4.10 too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from foreign import NEW, unpacked  # noqa: E402
from test_releases_of_nirs4all import same  # noqa: E402

from n4a_fast import WorkspaceStore  # noqa: E402
from n4a_fast.integrations.workspaces import convert, migrate  # noqa: E402


def main(newer: str, older: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there_and_back(newer, Path(folder))
        if older is not None:
            from_old_to_new(newer, older, Path(folder))


def there_and_back(newer: str, folder: Path) -> None:
    spectra = folder / "new-spectra.npy"
    np.save(spectra, np.random.default_rng(3).random((20, 1076)))
    original = unpacked(NEW, folder)
    convert(original, folder / "ours")
    convert(folder / "ours", folder / "back")
    wanted, found = (answers(newer, root, spectra) for root in (original, folder / "back"))
    for name in wanted:  # numbers to 1e-9: the last bit of an average depends on the order of its terms
        require(
            same(found[name], wanted[name]),
            f"nirs4all 1.4.10 says other things about {name}",
            found[name],
            wanted[name],
        )
    require(
        len(wanted["predicted"]) >= 1 and len(wanted["predictions"]) == 47,
        "the original holds less than it should",
        wanted,
    )
    print(
        f"1.4.10 -> n4a_fast -> 1.4.10: {len(wanted['predictions'])} predictions and {len(wanted['predicted'])} chains"
        " are the same"
    )


def from_old_to_new(newer: str, older: str, folder: Path) -> None:
    spectra, root = folder / "old-spectra.npy", folder / "old"
    run(older, HERE / "sweep_with_nirs4all_0_7.py", root, spectra, cwd=folder)
    report = migrate(root)
    X = np.load(spectra)
    with WorkspaceStore(root) as store:
        ours = {chain: np.ravel(store.replay_chain(chain, X)) for chain in store.query_chain_summaries()["chain_id"]}
        ranking = store.query_top_chains("mse")["chain_id"].to_list()
        compared = matching_predictions(store, ours)
    convert(root, folder / "newest")
    found = answers(newer, folder / "newest", spectra, engine="legacy")
    require(
        len(found["predictions"]) == report.written("predictions"), "predictions are missing", len(found["predictions"])
    )
    require(found["ranking"]["mse"] == ranking, "the rankings differ", found["ranking"], ranking)
    for chain, predicted in ours.items():
        require(
            bool(np.allclose(found["predicted"][chain], predicted, rtol=0, atol=1e-6)),
            f"chain {chain} predicts other values",
        )
    print(
        f"0.7.1 -> n4a_fast -> 1.4.10: {len(ours)} chains predict the same in both, {compared} stored predictions are"
        " met by replay"
    )


def matching_predictions(store: WorkspaceStore, replayed: dict[str, np.ndarray[Any, Any]]) -> int:
    """Stored averages over folds that the replay of their chain gives again."""
    rows = store.query_predictions(fold_id="avg", partition="test").to_dicts()
    for row in rows:
        arrays = store.get_prediction_arrays(row["prediction_id"])
        require(arrays is not None, "a prediction lost its arrays", row)
        assert arrays is not None
        tail = replayed[row["chain_id"]][-len(arrays["y_pred"]) :]
        require(
            bool(np.allclose(tail, arrays["y_pred"], rtol=0, atol=1e-5)),
            "a replay differs from the stored prediction",
            row,
        )
    require(len(rows) > 0, "there is no average to compare with")
    return len(rows)


def answers(python: str, root: Path, spectra: Path, engine: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        run(python, HERE / "answers_of_nirs4all_1_4.py", root, spectra, engine, cwd=root.parent).splitlines()[-1]
    )
    return found


def run(python: str, script: Path, *arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [python, str(script), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=600, check=False
    )
    require(done.returncode == 0, f"{script.name} failed", done.stderr[-3000:])
    return done.stdout


def require(holds: bool, complaint: str, *facts: object) -> None:
    if not holds:
        sys.exit("\n".join([complaint, *(str(fact)[:2000] for fact in facts)]))


if __name__ == "__main__":
    main(
        *[os.path.abspath(python) for python in sys.argv[1:3]]
    )  # not resolved: the link is what makes it a virtual environment
