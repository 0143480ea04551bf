"""Makes traces.json: execution traces of nirs4all as it records them, and the chains that its own ChainBuilder makes of
them.

python make_traces.py spectra.npz     # X (300 x 1076) and y; run by a Python that has nirs4all 0.7.1 and duckdb<2
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
from nirs4all.data.dataset import SpectroDataset
from nirs4all.pipeline.storage import chain_builder
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler, StandardScaler

FOUND: list[dict[str, Any]] = []


def cases() -> dict[str, list[Any]]:
    split, ridge = ShuffleSplit(n_splits=2, test_size=0.25, random_state=0), {"model": Ridge(alpha=0.1)}
    return {
        "plain": [MinMaxScaler(), {"y_processing": StandardScaler()}, split, ridge],
        "augmented": [
            {"feature_augmentation": [Normalizer(), StandardScaler()], "action": "extend"},
            MinMaxScaler(),
            split,
            ridge,
        ],
        "models_in_branches": [MinMaxScaler(), split, {"branch": [[Normalizer(), ridge], [RobustScaler(), ridge]]}],
        "branches": [MinMaxScaler(), split, {"branch": [[Normalizer()], [RobustScaler(), StandardScaler()]]}, ridge],
        "two_models": [MinMaxScaler(), split, ridge, {"model": Ridge(alpha=10.0)}],
        "sources": [Normalizer(), MinMaxScaler(), split, ridge],
    }


class Recording(chain_builder.ChainBuilder):  # type: ignore[misc]
    """nirs4all's builder, which keeps what it is given and what it makes."""

    def __init__(self, trace: Any, *arguments: Any) -> None:
        super().__init__(trace, *arguments)
        FOUND.append({"trace": trace.to_dict(), "build": super().build(), "build_all": super().build_all()})


def main(spectra: str) -> None:
    with np.load(spectra) as data:
        X, y = data["X"][:, ::32], data["y"].ravel()
    for module in list(sys.modules.values()):
        if getattr(module, "ChainBuilder", None) is chain_builder.ChainBuilder and module is not chain_builder:
            module.ChainBuilder = Recording
    chain_builder.ChainBuilder = Recording
    told = {}
    for name, pipeline in cases().items():
        found = SpectroDataset("spectra")
        for partition, rows in (("train", slice(None, 240)), ("test", slice(240, None))):
            found.add_samples([X[rows], X[rows, ::2]] if name == "sources" else X[rows], {"partition": partition})
        found.add_targets(y)
        FOUND.clear()
        with tempfile.TemporaryDirectory() as workspace:
            nirs4all.run(
                pipeline=pipeline,
                dataset=found,
                workspace_path=workspace,
                verbose=0,
                save_charts=False,
                plots_visible=False,
                refit=False,
            )
        told[name] = FOUND[-1]
    Path(__file__).with_name("traces.json").write_text(
        json.dumps(told, separators=(",", ":"), default=str), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1])
