"""nirs4all's own storage tests on this package's store: python tests/environments/upstream_tests.py FOLDER

FOLDER is a checkout of nirs4all's repository: its tests are not part of its packages. They run with the release that
is installed in `.venv-embedded-1.4.10`, once on nirs4all's store and once on ours. A test that passes there and fails
here must be named below, with its reason; one that is named and passes is told, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

PYTHON = Path(__file__).parents[2] / ".venv-embedded-1.4.10" / "bin" / "python"
CHOSEN = (
    "tests/unit/pipeline/storage",
    "tests/integration/storage",
    "tests/regression/test_storage_schema_contract.py",
    "tests/unit/data/test_predictions_store.py",
    "tests/unit/pipeline/dagml/test_conformal_store.py",
)
DIFFERENCES = {
    "opens or looks for store.sqlite": (
        *("test_fresh_store_stamps_schema_version", "test_store_sqlite_file_created", "test_wal_mode_active"),
        *("test_store_sqlite_exists", "test_user_version_stamped"),
        *("test_fresh_store_schema_frozen", "test_fresh_store_indexes_frozen"),
    ),
    "makes a table with SQL of its own": ("test_fetch_pl_handles_late_non_null_column_types",),
    "sets an artifact's count of references by SQL: here they are counted": ("test_artifact_gc",),
    "lets a write to a Parquet file fail, between the two files": (
        *("test_delete_run_crash", "test_delete_prediction_crash", "test_upsert_crash", "test_pk_collision_crash"),
        "test_outer_rollback_after_flush_leaves_only_orphans",
    ),
    "looks for what deletions leave in Parquet files until they are compacted": (
        *("test_delete_prediction_then_compact_reclaims_arrays", "test_reclaims_arrays_of_deleted_predictions"),
        "test_live_snapshot_taken_under_process_lock",
        *("test_below_threshold_keeps_tombstones_pending", "test_skipped_inside_open_transaction"),
        "test_metadata_only_upsert_tombstone_resolved_by_next_auto_compaction",
        *("test_auto_compact_failure_does_not_break_the_delete", "test_reopen_applies_pending_tombstones"),
        "test_failed_reconciliation_never_blocks_opening",
        "test_compact",
    ),
    "puts arrays into a Parquet file without a prediction": (
        *("test_array_orphans_are_physically_reclaimed", "test_array_store_roundtrips_spectral_replay_evidence"),
        "test_arrays_stored_in_parquet",
    ),
}


def outcomes(folder: Path, ours: bool) -> dict[str, bool]:
    """By test, whether it passes."""
    with tempfile.TemporaryDirectory() as place:
        report, alone = Path(place) / "report.xml", Path(place) / "checkout"
        shutil.copytree(folder / "tests", alone / "tests")  # without the package: it would be found first
        command = [PYTHON, "-W", "ignore", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts="]
        command += ["--continue-on-collection-errors", f"--junit-xml={report}"]
        variables = {**os.environ, "N4A_FAST_INSTALL": "1" if ours else "", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        tests = [name for name in CHOSEN if (alone / name).exists()]
        subprocess.run(
            [*map(str, command), *tests],
            cwd=alone,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return {
            f"{case.get('classname')}::{case.get('name')}": case.find("failure") is None and case.find("error") is None
            for case in cases
        }


def main(folder: str) -> int:
    theirs, ours = (outcomes(Path(folder), is_ours) for is_ours in (False, True))
    passing = [test for test, passes in theirs.items() if passes]
    failing = [test for test in passing if not ours.get(test, False)]
    named = {name for names in DIFFERENCES.values() for name in names}
    unknown = [test for test in failing if test.rpartition("::")[2].partition("[")[0] not in named]
    agreeing = named - {test.rpartition("::")[2].partition("[")[0] for test in failing}
    print(f"{len(passing)} tests pass on nirs4all's store, {len(passing) - len(failing)} of them on this one")
    for title, tests in (("no reason is known for", unknown), ("named, but passes:", sorted(agreeing))):
        for test in tests:
            print(title, test)
    return bool(unknown or agreeing or not passing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
