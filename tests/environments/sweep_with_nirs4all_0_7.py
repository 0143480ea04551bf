"""Run by nirs4all 0.7.1 on its own DuckDB 1.x: a small sweep, written to the workspace `argv[1]`; the spectra to
`argv[2]`.
"""

import sys

import nirs4all
import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(7)
X = rng.normal(size=(90, 60)).cumsum(axis=1)
y = X[:, 5] - 0.5 * X[:, 40] + rng.normal(scale=0.1, size=90)
np.save(sys.argv[2], X)
models = {"_or_": [{"model": PLSRegression(count)} for count in (2, 4)]}
splitter = ShuffleSplit(n_splits=3, test_size=0.25, random_state=0)
nirs4all.run(
    pipeline=[StandardScaler(), splitter, models],
    dataset=(X, y, {"train": 70}),
    verbose=0,
    workspace_path=sys.argv[1],
    save_charts=False,
)
