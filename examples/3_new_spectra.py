"""
New spectra for many chains at once
===================================

A sweep's chains are fitted models that can be used at any time. Here they predict 1,626 spectra of a running
fermentation in one call, and the best one is packed into a file for another machine.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from chemotools.datasets import load_fermentation_test, load_fermentation_train
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

from n4a_fast import WorkspaceStore

# %%
# A sweep
# -------
# Trained on 21 mixtures of a laboratory.

folder = tempfile.TemporaryDirectory()
store = WorkspaceStore(Path(folder.name) / "my_sweep")

spectra, reference = load_fermentation_train(set_output="polars")
band = [950 <= float(name) <= 1200 for name in spectra.columns]
X, y = spectra.to_numpy()[:, band], reference["glucose"].to_numpy()
for steps in ([], [StandardNormalVariate()], [SavitzkyGolay(window_length=15, polyorder=2, deriv=1)]):
    for components in (2, 3, 4):
        model = make_pipeline(*steps, PLSRegression(components, scale=False))
        store.save_cross_validation(
            model, X, y, cv=KFold(5, shuffle=True, random_state=0), dataset="fermentation", target="glucose", unit="g/L"
        )

# %%
# The five best chains on all new spectra
# ---------------------------------------
# The instrument took a spectrum each 1.25 minutes. ``replay_chains`` gives a row of predictions for each chain: what is
# linear in a chain is one matrix product. The dots are samples that were analysed by HPLC.

online, hplc = load_fermentation_test(set_output="polars")
X_new = online.to_numpy()[:-3, band]  # the last three are constant: no signal
hours = np.arange(len(X_new)) * 1.25 / 60

chains = store.leaderboard().frame["chain_id"].to_list()[:5]
predicted = store.replay_chains(chains, X_new)
print(predicted.shape)

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.fill_between(hours, predicted.min(axis=0), predicted.max(axis=0), alpha=0.3, label="range of the five best chains")
axes.plot(hours, predicted[0], label="best chain")
axes.scatter(hplc["time"], hplc["glucose"], color="black", zorder=3, label="measured by HPLC")
axes.set(xlabel="time (h)", ylabel="glucose (g/L)")
axes.legend()
plt.show()

# %%
# All five were about equally good on the mixtures, and yet they differ by tens of g/L here: what else is in a running
# fermentation shifts some of them. Replaying many chains shows this before one of them is trusted.

# %%
# How a chain is replayed, and whether its steps were fused:

print(store.replay_plan(chains[0]))

# %%
# A file for another machine
# --------------------------
# A bundle needs no workspace: steps, fitted models, and hashes of all of it. Importing it verifies the hashes and runs
# nothing of it; what an imported model may do when it predicts is the subject of the page on files from other people.

bundle = store.export_chain(chains[0], Path(folder.name) / "glucose.n4a")
print(f"{bundle.name}: {bundle.stat().st_size / 1000:.0f} kB")

with WorkspaceStore(Path(folder.name) / "elsewhere") as elsewhere:
    chain = elsewhere.import_chain(bundle)
    assert np.allclose(elsewhere.replay_chain(chain, X_new), predicted[0])
    print("the same predictions there")

# %%
# In a shell: ``n4a-fast predict my_sweep @best new.csv``, ``n4a-fast export my_sweep @best -o glucose.n4a`` and
# ``n4a-fast import elsewhere glucose.n4a``.

store.close()
folder.cleanup()
