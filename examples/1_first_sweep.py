"""
A first sweep and its leaderboard
=================================

Which preprocessing and which number of latent variables predict glucose best? Fifteen variants are cross-validated
and kept with their fitted models; the leaderboard ranks them.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from chemotools.datasets import load_fermentation_train
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

from n4a_fast import WorkspaceStore

# %%
# The spectra
# -----------
# 21 mixtures of a laboratory, measured in the mid-infrared; glucose in g/L. Sugars absorb between 950 and 1200 cm⁻¹,
# so only this band is used.

spectra, reference = load_fermentation_train(set_output="polars")
wavenumbers = [float(name) for name in spectra.columns if 950 <= float(name) <= 1200]
X = spectra.to_numpy()[:, [950 <= float(name) <= 1200 for name in spectra.columns]]
y = reference["glucose"].to_numpy()

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(wavenumbers, X.T, color="tab:blue", alpha=0.5)
axes.set(xlabel="wavenumber (cm⁻¹)", ylabel="absorbance", title=f"{len(X)} spectra, {len(wavenumbers)} wavenumbers")
plt.show()

# %%
# The sweep
# ---------
# A run holds all variants of one question. ``save_cross_validation`` takes any estimator of scikit-learn: fold models,
# predictions and scores of a variant are stored in one durable step. The first score of ``scoring`` ranks. (For you the
# workspace is a folder that stays, such as ``WorkspaceStore("my_sweep")``.)

folder = tempfile.TemporaryDirectory()
store = WorkspaceStore(Path(folder.name) / "my_sweep")

preprocessings = {
    "none": [],
    "SNV": [StandardNormalVariate()],
    "first derivative": [SavitzkyGolay(window_length=15, polyorder=2, deriv=1)],
}
run = store.begin_run("glucose", {"folds": 5}, [{"name": "fermentation"}], expected=15)
for name, steps in preprocessings.items():
    for components in (1, 2, 3, 4, 5):
        store.save_cross_validation(
            make_pipeline(*steps, PLSRegression(components, scale=False)),
            X,
            y,
            cv=KFold(5, shuffle=True, random_state=0),
            scoring=["neg_root_mean_squared_error", "r2"],
            run=run,
            name=f"{name}, {components} latent variables",
            dataset="fermentation",
            wavelengths=wavenumbers,
            target="glucose",
            unit="g/L",
        )
store.complete_run(run, {"variants": 15})

# %%
# The leaderboard
# ---------------
# One rule ranks everywhere: the mean of the validation scores of a chain's own folds. A chain is one variant with its
# fitted models.

store.leaderboard("rmse", n=8)

# %%
# The best chain of each preprocessing:

store.leaderboard("rmse", by="preprocessing")

# %%
# Any other score that was kept ranks as well, in its own direction:

print(store.leaderboard("r2", n=3))

# %%
# The rows of a leaderboard are a polars frame, and every table of the workspace answers to SQL:

print(store.leaderboard("rmse", n=3).frame.select("rank", "preprocessings", "model_name", "val_score", "val_sd"))
print(
    store.sql(
        """SELECT preprocessings, count(*) AS folds, round(median(val_score), 2) AS rmse
        FROM predictions WHERE partition = 'val' GROUP BY ALL ORDER BY rmse"""
    )
)

# %%
# In a terminal, ``n4a-fast top my_sweep`` prints the same leaderboard, and ``n4a-fast report my_sweep -o sweep.html``
# writes all of it with charts to one file.

store.close()
folder.cleanup()
