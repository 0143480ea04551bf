"""
Predicted against measured
==========================

What the best chain predicted for spectra that its models had not seen: numbers of a regression, names of a
classification.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from chemotools.datasets import load_coffee, load_fermentation_train
from chemotools.derivative import SavitzkyGolay
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from n4a_fast import WorkspaceStore

# %%
# Two small sweeps
# ----------------
# Glucose in mixtures of a laboratory, and the country that a coffee comes from.

folder = tempfile.TemporaryDirectory()
store = WorkspaceStore(Path(folder.name) / "my_sweep")

spectra, reference = load_fermentation_train(set_output="polars")
X = spectra.to_numpy()[:, [950 <= float(name) <= 1200 for name in spectra.columns]]
y = reference["glucose"].to_numpy()
for components in (2, 3, 4):
    model = make_pipeline(SavitzkyGolay(window_length=15, polyorder=2, deriv=1), PLSRegression(components, scale=False))
    folds = KFold(5, shuffle=True, random_state=0)
    store.save_cross_validation(model, X, y, cv=folds, dataset="fermentation", target="glucose", unit="g/L")

coffees, countries = load_coffee(set_output="polars")
labels = countries["labels"].to_numpy().astype(str)
for strength in (0.1, 1.0):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    store.save_cross_validation(model, coffees.to_numpy(), labels, cv=StratifiedKFold(5), dataset="coffee")

# %%
# Numbers
# -------
# Each fold of the best chain has predicted the samples that were held out from it. ``load_arrays`` reads the
# predictions of all folds at once; ``sample_indices`` are rows of ``X``.

best = store.leaderboard(dataset="fermentation").best
held_out = store.load_arrays(chain_id=best.chain_id, partition="val", columns=("y_true", "y_pred", "sample_indices"))
measured, predicted = (np.concatenate(list(column)) for column in (held_out.y_true, held_out.y_pred))
rmsecv = np.sqrt(np.mean((predicted - measured) ** 2))

figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
axes.axline((0, 0), slope=1, color="0.7")
for fold, (of_fold, by_fold) in enumerate(zip(held_out.y_true, held_out.y_pred, strict=True)):
    axes.scatter(of_fold, by_fold, label=f"fold {fold}")
axes.set(xlabel="measured glucose (g/L)", ylabel="predicted (g/L)", title=f"held-out samples, RMSECV {rmsecv:.2f} g/L")
axes.legend()
plt.show()

# %%
# The sample that is farthest off:

rows = np.concatenate(list(held_out.sample_indices))
worst = np.abs(predicted - measured).argmax()
print(f"row {rows[worst]}: measured {measured[worst]:.1f} g/L, predicted {predicted[worst]:.1f} g/L")

# %%
# Names
# -----
# Text labels are stored as such. With ``labels=True`` they come back as text.

best = store.leaderboard(dataset="coffee").best
held_out = store.load_arrays(chain_id=best.chain_id, partition="val", labels=True)
true, found = (np.concatenate(list(column)) for column in (held_out.y_true, held_out.y_pred))

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
ConfusionMatrixDisplay.from_predictions(true, found, ax=axes, colorbar=False)
plt.show()

# %%
# ``store.plot("scatter", best.chain_id)`` and ``store.plot("confusion", ...)`` draw such charts without a line of
# matplotlib; in a shell it is ``n4a-fast plot``.

store.close()
folder.cleanup()
