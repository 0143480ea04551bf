"""What `verify` finds, what it repairs, and that damage at random is found or changes nothing that a reader sees.

A few random cases here; `make verify-scan` takes a thousand.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from helpers import (
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    count,
    finish,
    kill,
    predict_with_arrays,
    read_line,
    save_chain,
)
from polars.testing import assert_frame_equal

from n4a_fast import WorkspaceStore
from n4a_fast.durable.duckdb_file import DuckDBFile
from n4a_fast.errors import InvalidInputError, ReadOnlyError, StoreError, StoreLockedError
from n4a_fast.library import PipelineLibrary
from n4a_fast.maintenance.findings import VerificationReport
from n4a_fast.tables.chains import artifacts_of
from n4a_fast.values.ids import uuid7

CASES = int(os.environ.get("N4A_VERIFY_CASES", "8"))
TABLES = (
    "runs",
    "pipelines",
    "chains",
    "predictions",
    "prediction_arrays",
    "artifacts",
    "logs",
    "chain_scores",
    "v_chain_summary",
)
# rows that others refer to, or that follow from others
REFERRED = (
    "runs",
    "pipelines",
    "chains",
    "chain_artifacts",
    "predictions",
    "shared_arrays",
    "shared_indices",
    "stored_artifacts",
    "cached_chain_scores",
    "cached_chain_summaries",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with some of everything, closed."""
    root = tmp_path_factory.mktemp("sound") / "workspace"
    for number in range(2):
        with WorkspaceStore(root) as store:
            run = store.begin_run("sweep", {"cv": 5}, [])
            pipeline = begin_pipeline(store, run)
            model = store.save_artifact({"of": number, "is": [0.5] * 300}, "dict", "model", "joblib")
            sweep = Sweep(run, pipeline, save_chain(store, pipeline, fold_artifacts={"0": model}))
            for fold in range(30):
                predict_with_arrays(store, sweep, fold, fold_id=str(fold))
            store.log_step(sweep.pipeline, 1, "SNV", "end")
            store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
            store.complete_run(sweep.run, {})
            store.leaderboard()  # computes what is cached of chains
    PipelineLibrary(root).save_template([{"model": "PLS"}], "a template")
    return root


@pytest.fixture
def workspace(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "workspace"))


def verified(root: Path, **options: Any) -> VerificationReport:
    with WorkspaceStore(root) as store:
        return store.verify(**options)


def kinds(report: VerificationReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def bare(root: Path, *statements: str) -> None:
    with duckdb.connect(str(root / "store.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def artifact_files(root: Path) -> list[Path]:
    return sorted((root / "artifacts").glob("??/*.joblib"))


@pytest.mark.long
def test_a_sound_workspace_has_no_findings(workspace: Path) -> None:
    report = verified(workspace)
    assert report
    assert report.findings == []
    assert report.checked["blocks"] > 0
    assert report.checked["artifacts"] == 2
    with WorkspaceStore.open_readonly(workspace) as store:
        assert report.checked["predictions"] == count(store, "predictions")
    assert report.checked["templates"] == 1


# what `steps` and the references of a chain may hold
STEPS = (
    "[]", '[{"artifact_id":null,"params":{"artifact_id":"b"}}]', '[{"artifact_id":"c"},{"artifact_ids":["a"]}]',
    '[{"artifact_id":["a"]}, {"artifact_id":7}]', '[{"artifact_id":"a"},{"artifact_id":"c"}]', '["artifact_id"]', None,
)  # fmt: skip
REFERENCES = (
    "{}", '{"0":"a","1":"b"}', '{"1":["a","c"]}', '{"1":{"2":["b"],"3":"a"}}', '{"b":"a","1":"a"}', '"a"', '["a"]',
    '{"_of":"b","0":"a"}', '{"_source_map":{"0":"b"}}', '{"0": "a", "1": ["b"]}', '{"0":"\\u0061"}', '{"0":null,"1":7}',
    '{"0":"a\\",\\"b"}', "null", None,
)  # fmt: skip
INSERT = """INSERT INTO chains (chain_id, steps, fold_artifacts, shared_artifacts)
SELECT unnest(?), unnest(?), unnest(?), unnest(?)"""


def test_links_are_those_that_a_chain_names_in_whatever_form(workspace: Path) -> None:
    chains = [(str(number), *form) for number, form in enumerate(itertools.product(STEPS, REFERENCES, REFERENCES))]
    links, wrong, rng = list[tuple[str, str | None]](), set[str](), random.Random(0)
    for chain, steps, folds, shared in chains:
        noted: list[str | None] = rng.sample(("a", "b", "c", "a", None), rng.randrange(5))
        with suppress(TypeError, AttributeError):  # what no store writes
            named = artifacts_of({"steps": steps, "fold_artifacts": folds, "shared_artifacts": shared})
            noted = rng.choice(([*named], noted))
            wrong |= {f"chains {chain}"} if sorted(named) != sorted(name or "" for name in noted) else set()
        links += [(chain, name) for name in noted]
    with duckdb.connect(str(workspace / "store.duckdb")) as connection:
        connection.execute(INSERT, [list(column) for column in zip(*chains, strict=True)])
        connection.execute(
            "INSERT INTO chain_artifacts (chain_id, artifact_id) SELECT unnest(?), unnest(?)",
            [list(column) for column in zip(*links, strict=True)],
        )
    assert len(chains) / 4 < len(wrong) < len(chains) / 2
    found = verified(workspace, quick=True).findings
    assert {finding.id for finding in found if finding.kind == "wrong link"} == wrong


def test_the_progress_reaches_the_end_of_each_part(workspace: Path) -> None:
    told: dict[str, tuple[int, int]] = {}
    verified(workspace, progress=lambda part, done, total: told.update({part: (done, total)}))
    assert {"blocks", "rows", "predictions", "artifacts"} <= told.keys()
    assert all(done == total for done, total in told.values())


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM runs", "dangling reference"),
        ("DELETE FROM chains", "dangling reference"),
        ("DELETE FROM shared_indices", "dangling reference"),
        ("DELETE FROM stored_artifacts", "missing artifact"),
        ("DELETE FROM predictions WHERE fold_id = '3'", "leftover"),
        ("DELETE FROM chain_artifacts", "wrong link"),
        ("INSERT INTO predictions FROM predictions LIMIT 1", "duplicate"),
        ("UPDATE predictions SET fold_id = 'other' WHERE fold_id = '3'", "wrong key"),
        ("UPDATE predictions SET id_key = 5 WHERE fold_id = '3'", "wrong key"),
        ("UPDATE prediction_values SET id_key = 5", "wrong key"),
        ("UPDATE shared_arrays SET array_values = [7.5]", "damaged row"),
        ("UPDATE prediction_values SET y_pred_width = 3", "damaged row"),
        ("INSERT INTO store_info FROM store_info", "damaged row"),
    ],
)
def test_rows_that_contradict_others_are_found(workspace: Path, statement: str, kind: str) -> None:
    bare(workspace, statement)
    assert kind in kinds(verified(workspace))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda path: path.unlink(), "missing file"),
        (lambda path: path.write_bytes(b"something else"), "damaged file"),
        (lambda path: path.write_bytes(b""), "damaged file"),
        (lambda path: shutil.copyfile(artifact_files(path.parents[2])[1], path), "damaged file"),
    ],
    ids=["removed", "changed", "emptied", "swapped"],
)
def test_artifacts_that_are_gone_or_changed_are_found(
    workspace: Path, damage: Callable[[Path], object], kind: str
) -> None:
    path = artifact_files(workspace)[0]
    damage(path)
    (finding,) = verified(workspace).findings
    assert (finding.kind, finding.path) == (kind, path)
    assert path.stem in finding.id


def test_a_damaged_block_is_found_by_its_number(workspace: Path) -> None:
    path = workspace / "store.duckdb"
    content = path.read_bytes()
    file = DuckDBFile(lambda offset, length: content[offset : offset + length])
    blocks = file.blocks()
    data_blocks = [b for b in range(file.active.blocks) if b not in blocks.free and b not in blocks.metadata]
    with path.open("r+b") as opened:
        opened.seek(file.place_of(data_blocks[-1]) + 1000)
        opened.write(b"rotten")
    found = [finding.id for finding in verified(workspace).findings if finding.kind == "damaged block"]
    assert found == [str(data_blocks[-1])]


def test_a_damaged_template_is_found(workspace: Path) -> None:
    (path,) = (workspace / "library").glob("*/*/pipeline.json")
    path.write_text("{")
    (finding,) = verified(workspace).findings
    assert (finding.kind, finding.path) == ("damaged template", path)


def test_a_template_with_other_content_is_found_and_one_of_another_program_is_read(workspace: Path) -> None:
    (path,) = (workspace / "library").glob("*/*/pipeline.json")
    path.write_text(path.read_text().replace("PLS", "PCR"))
    (finding,) = verified(workspace).findings
    assert (finding.kind, finding.path) == ("damaged template", path)
    metadata = path.with_name("metadata.json")
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "checksum": None}))
    assert kinds(verified(workspace)) == {"damaged template"}
    metadata.write_text('{"name": "written by another program"}')
    assert verified(workspace)


def test_quick_finds_what_is_missing(workspace: Path) -> None:
    artifact_files(workspace)[0].unlink()
    assert kinds(verified(workspace, quick=True)) == {"missing file"}


@pytest.mark.parametrize("sample", [0.0, -1.0, 1.5])
def test_a_sample_that_is_no_share_is_refused(workspace: Path, sample: float) -> None:
    with pytest.raises(InvalidInputError, match="share"):
        verified(workspace, sample=sample)


def test_a_repair_keeps_what_it_removes(workspace: Path) -> None:
    bare(workspace, "DELETE FROM predictions WHERE fold_id = '3'", "DELETE FROM chain_artifacts")
    orphan = workspace / "artifacts" / "ab" / "ab0123456789.joblib"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"of nobody")
    os.utime(orphan, (0, 0))
    report = verified(workspace, repair=True)
    assert report.is_sound
    assert {finding.kind for finding in report.findings if finding.is_repaired} == {
        "leftover",
        "wrong link",
        "wrong score",
        "orphaned file",
    }
    assert report.kept is not None
    assert (report.kept / "artifacts" / "ab" / "ab0123456789.joblib").read_bytes() == b"of nobody"
    assert duckdb.sql(f"SELECT count(*) FROM '{report.kept / 'prediction_values.parquet'}'").fetchall() == [(2,)]
    assert verified(workspace).findings == []


def test_a_repair_changes_nothing_that_may_be_the_only_copy(workspace: Path) -> None:
    bare(workspace, "DELETE FROM runs")
    before = {table: duckdb_count(workspace, table) for table in REFERRED}
    assert not verified(workspace, repair=True)
    assert {table: duckdb_count(workspace, table) for table in REFERRED} == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cached_chain_scores SET val_score = val_score / 2",
        "UPDATE cached_chain_summaries SET cv_scores = replace(cv_scores, '0.1', '0.01')",
        "UPDATE cached_chain_summaries SET first_nk = first_nk + 1",
        "DELETE FROM cached_chain_scores",
        "INSERT INTO cached_chain_scores FROM (SELECT * REPLACE ('of nobody' AS chain_id) FROM cached_chain_scores)",
    ],
)
@pytest.mark.long
def test_scores_of_chains_are_computed_again_and_repaired(workspace: Path, statement: str) -> None:
    with WorkspaceStore(workspace) as store:
        before = store.sql("FROM chain_scores ORDER BY chain_id")
    bare(workspace, statement)
    assert kinds(verified(workspace)) == {"wrong score"}
    report = verified(workspace, repair=True)
    assert report.is_sound
    assert report.kept is not None
    assert (report.kept / "cached_chain_scores.parquet").is_file()
    with WorkspaceStore(workspace) as store:
        assert_frame_equal(store.sql("FROM chain_scores ORDER BY chain_id"), before)
        assert store.verify().findings == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE predictions SET nk = 7 WHERE fold_id = '3'",
        "UPDATE predictions SET nk = NULL, id_key = 5",
        "UPDATE prediction_values SET id_key = 5",
    ],
)
def test_keys_are_computed_again_and_find_their_rows(workspace: Path, statement: str) -> None:
    with WorkspaceStore(workspace) as store:
        before = store.sql("FROM predictions ORDER BY prediction_id")
        wanted = before["prediction_id"].to_list()
        arrays = list(store.load_arrays(wanted).y_pred)
    bare(workspace, statement)
    report = verified(workspace, repair=True)
    assert report.is_sound
    assert "wrong key" in kinds(report)
    assert report.kept is not None
    assert list(report.kept.glob("*.keys.parquet"))
    with WorkspaceStore(workspace) as store:
        assert_frame_equal(store.sql("FROM predictions ORDER BY prediction_id"), before)
        np.testing.assert_array_equal(list(store.load_arrays(wanted).y_pred), arrays)
        assert store.verify().findings == []


def test_a_key_that_another_prediction_has_is_left_and_told(workspace: Path) -> None:
    bare(workspace, "UPDATE predictions SET fold_id = '2' WHERE fold_id IN ('3', '4')")
    with duckdb.connect(str(workspace / "store.duckdb")) as connection:
        before = connection.execute("FROM predictions ORDER BY ALL").fetchall()
    report = verified(workspace, repair=True)
    assert not report.is_sound
    assert {finding.kind for finding in report.findings if not finding.is_repaired} == {"wrong key"}
    with duckdb.connect(str(workspace / "store.duckdb")) as connection:
        assert connection.execute("FROM predictions ORDER BY ALL").fetchall() == before


LOGGED = """import sys
from helpers import *
store = WorkspaceStore(sys.argv[1], flush_interval=None)
sweep = begin_sweep(store)
store.flush()
for number in range(3):
    predict_with_arrays(store, sweep, number, fold_id=f"logged {number}"); store.flush()
print(sweep.pipeline); input()"""


@pytest.fixture
def logged(workspace: Path) -> tuple[Path, str]:
    """The log of a killed writer with four records, of which the third is damaged; the pipeline it is about."""
    writer = child(LOGGED, workspace)
    pipeline = read_line(writer)
    kill(writer)
    (log,) = workspace.glob("store.duckdb.log-*")
    data = bytearray(log.read_bytes())
    data[data.index(b"logged 1") + 2] ^= 1
    log.write_bytes(data)
    return log, pipeline


def test_of_a_damaged_log_all_that_is_whole_is_taken_over_and_the_file_kept(
    workspace: Path, logged: tuple[Path, str]
) -> None:
    log, pipeline = logged
    damaged = log.read_bytes()
    (finding,) = [each for each in verified(workspace).findings if not each.is_leftover]
    assert (finding.kind, finding.path) == ("damaged log", log)
    assert log.read_bytes() == damaged
    report = verified(workspace, repair=True)
    assert report.is_sound
    assert report.kept is not None
    assert (report.kept / log.name).read_bytes() == damaged
    assert not log.exists()
    with WorkspaceStore(workspace) as store:
        folds = store.sql("SELECT fold_id FROM predictions WHERE pipeline_id = ?", [pipeline])["fold_id"].to_list()
        assert sorted(folds) == ["logged 0", "logged 2"]
        assert store.verify().findings == []


def test_what_killed_processes_left_is_told_and_taken_away(workspace: Path) -> None:
    writer = child(
        "import sys\nfrom helpers import *\nstore = WorkspaceStore(sys.argv[1])\nsweep = begin_sweep(store)\n"
        "store.save_artifact([1], 'list', 'model', 'joblib'); store.list_runs(); print('held'); input()",
        workspace,
    )
    read_line(writer)
    kill(writer)
    draft = workspace / "store.duckdb.vacuum"
    draft.write_bytes(b"half of a copy")
    session = workspace / f"store.duckdb.session-{uuid7()}"
    session.write_bytes(b"of one without a log")
    os.utime(draft, (0, 0))
    with WorkspaceStore.open_readonly(workspace) as store:
        report = store.verify()
    assert report.is_sound
    assert kinds(report) == {"stale claim", "left file"}
    assert {finding.path for finding in report.findings if finding.kind == "left file"} == {draft, session}
    report = verified(workspace, repair=True)
    assert all(finding.is_repaired for finding in report.findings)
    assert report.kept is not None
    assert (report.kept / draft.name).read_bytes() == b"half of a copy"
    assert verified(workspace).findings == []


def test_a_shard_is_verified_and_repaired_on_its_own(workspace: Path) -> None:
    with WorkspaceStore(workspace) as store, store.shard().open() as inner:
        predict_with_arrays(inner, begin_sweep(inner))
        inner.list_runs()
    (shard,) = (workspace / "shards").iterdir()
    bare(shard, "DELETE FROM predictions")
    report = verified(workspace)
    assert {(finding.kind, finding.path) for finding in report.findings} >= {("leftover", shard / "store.duckdb")}
    before = (workspace / "store.duckdb").read_bytes()
    assert verified(workspace, repair=True).is_sound
    assert (workspace / "store.duckdb").read_bytes() == before
    assert verified(workspace).findings == []


def duckdb_count(root: Path, table: str) -> int:
    with duckdb.connect(str(root / "store.duckdb"), read_only=True) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def test_a_reader_may_verify_and_not_repair(workspace: Path) -> None:
    with WorkspaceStore.open_readonly(workspace) as store:
        assert store.verify()
        with pytest.raises(ReadOnlyError):
            store.verify(repair=True)


def test_a_file_that_another_process_keeps_is_no_finding(workspace: Path) -> None:
    holds = "with WorkspaceStore(sys.argv[1]) as s, s.transaction(): s.list_runs(); print('held'); sys.stdin.readline()"
    with WorkspaceStore(workspace, lock_timeout=0.1) as store:
        store._open().database.detach()
        holder = child(f"import sys\nfrom n4a_fast import WorkspaceStore\n{holds}", workspace)
        assert read_line(holder) == "held"
        with pytest.raises(StoreLockedError):
            store.verify()
        finish(holder)
        assert store.verify()


def test_a_sweep_goes_on_while_another_process_verifies(workspace: Path) -> None:
    writer = child(
        "import sys\nfrom helpers import *\nstore = WorkspaceStore(sys.argv[1])\nrun = store.begin_run('r', {}, [])\n"
        "while True:\n"
        "    pipeline = begin_pipeline(store, run); chain = save_chain(store, pipeline)\n"
        "    predict_with_arrays(store, Sweep(run, pipeline, chain))\n"
        "    store.complete_pipeline(pipeline, 0.1, 0.2, 'rmse', 5); print(pipeline)",
        workspace,
    )
    for _ in range(3):
        read_line(writer)
    report = verified(workspace)
    read_line(writer)
    kill(writer)
    assert report.findings == []


def test_the_report_is_plain_json(workspace: Path) -> None:
    artifact_files(workspace)[0].unlink()
    told = verified(workspace).to_dict()
    assert told["is_sound"] is False
    assert told["findings"][0]["kind"] == "missing file"


def corrupt(root: Path, dice: random.Random) -> str:
    """Damage of one kind, somewhere."""
    store = root / "store.duckdb"
    kind = dice.choice(("byte", "byte", "length", "rows", "rows", "file", "template"))
    if kind == "byte":
        data = bytearray(store.read_bytes())
        for _ in range(dice.choice((1, 1, 20))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        store.write_bytes(data)
    elif kind == "length":
        with store.open("r+b") as file:
            file.truncate(dice.randrange(store.stat().st_size + 5000))
    elif kind == "rows":
        table = dice.choice(REFERRED)
        bare(root, f"DELETE FROM {table} WHERE rowid = {dice.randrange(duckdb_count(root, table))}")
        return f"row of {table}"
    elif kind == "file":
        damage_file(dice.choice(artifact_files(root)), dice)
    else:
        damage_file(dice.choice(sorted((root / "library").glob("*/*/*.json"))), dice)
    return kind


def damage_file(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    way = dice.randrange(3)
    if way == 0:
        path.unlink()
    elif way == 1:
        path.write_bytes(data[: dice.randrange(len(data))])
    else:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)


def seen(root: Path) -> dict[str, Any]:
    """All that a reader sees."""
    with WorkspaceStore.open_readonly(root) as store:
        rows = {table: sorted(map(str, store.sql(f"FROM {table}").rows())) for table in TABLES}
        models = {name: store.load_artifact(name) for (name,) in store.sql("SELECT artifact_id FROM artifacts").rows()}
    templates = {path.parent.name: path.read_text() for path in (root / "library").glob("*/*/pipeline.json")}
    return {**rows, "models": models, "templates": templates}


@pytest.mark.parametrize("case", range(CASES))
@pytest.mark.long
def test_damage_at_random_is_found_or_changes_nothing_that_a_reader_sees(
    sound: Path, workspace: Path, case: int
) -> None:
    what = corrupt(workspace, random.Random(case))
    try:
        is_found = bool(verified(workspace).findings)
    except StoreError:
        is_found = True
    assert is_found or seen(workspace) == seen(sound), what
