"""
A job array and its shards
==========================

On a cluster, each task of a job array fills a small workspace of its own, a shard, and one merge at the end brings
them together. No task waits for another, and one that was killed is submitted again.

The tasks are those of :download:`job_array.py <../../examples/job_array.py>`, ridge regressions on simulated spectra.
Here they run one after the other; with Slurm each is a job:

.. code-block:: sh

    RUN=$(python job_array.py begin sweep)
    ARRAY=$(sbatch --parsable --array=0-2 --wrap "python job_array.py task sweep $RUN \\$SLURM_ARRAY_TASK_ID of 3")
    sbatch --dependency=afterok:$ARRAY --wrap "python job_array.py merge sweep $RUN"
"""

import tempfile
from pathlib import Path

import job_array  # beside this file
import matplotlib.pyplot as plt

from n4a_fast import WorkspaceStore

# %%
# Begin
# -----
# One run holds what all tasks will find.

folder = tempfile.TemporaryDirectory()
sweep = Path(folder.name) / "sweep"
with WorkspaceStore(sweep) as store:
    run = store.begin_run("job array", {"variants": len(job_array.VARIANTS)}, [{"name": "synthetic"}])

# %%
# Three tasks
# -----------
# Each asks the workspace for a shard (``store.shard(folder, run_id=run)``) and saves its part of the twelve variants
# into it, as into any workspace. Until the merge, the workspace itself has none of them.

for number in range(3):
    job_array.task(str(sweep), run, number, 3)

print(sorted(path.name for path in (sweep / "shards").iterdir()))
with WorkspaceStore.open_readonly(sweep) as store:
    print(store.list_pipelines(run_id=run).height, "pipelines in the workspace")

# %%
# Merge
# -----
# ``store.merge()`` takes each shard in one transaction. What is there already is passed over, so a merge that was
# killed is repeated, and the second merge adds nothing.

with WorkspaceStore(sweep) as store:
    report = store.merge()
    print(report.added("predictions"), "predictions from", len(report.sources), "shards")
    print(store.merge().added("predictions"), "by a second merge")
    store.complete_run(run, {})
    best = store.sql(job_array.BEST, [run])
    errors = store.sql(
        "SELECT name, test_score FROM predictions JOIN pipelines USING (pipeline_id) WHERE partition = 'test'"
    )

# %%
# All twelve variants are in one workspace now; the best three of them by their error on the test set, and all of them:

print(best)

found = dict(errors.rows())
figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
for ridge in (1e-3, 1e-1, 1e1):
    windows = [window for window, of_variant in job_array.VARIANTS if of_variant == ridge]
    axes.plot(
        windows, [found[f"window {window}, ridge {ridge:g}"] for window in windows], "o-", label=f"ridge {ridge:g}"
    )
axes.set(xlabel="smoothed over (wavelengths)", ylabel="RMSE of the test set")
axes.legend()
plt.show()

folder.cleanup()
