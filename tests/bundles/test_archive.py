"""Damaged, unsafe and foreign files are refused before anything is written, and looking never loads."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_chains import case, save, spectra
from helpers import SHARE, child, counts, finish

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.bundles.archive import limit_of
from n4a_fast.bundles.reader import read_bundle
from n4a_fast.errors import BundleError, NotFoundError, UntrustedArtifactError

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def good_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    with WorkspaceStore(folder / "other") as other:
        return other.export_chain(save(other, *case("folds")), folder / "model.n4a")


@pytest.fixture
def bundle(good_bundle: Path, tmp_path: Path) -> Path:
    """A good bundle from another store."""
    return Path(shutil.copy(good_bundle, tmp_path))


def rewritten(bundle: Path, change: Callable[[Members], None], integrity: bool = True) -> Path:
    """The bundle with its members changed, and its hashes made right again if `integrity`."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if integrity and "manifest.json" in members:
        manifest = json.loads(members["manifest.json"])
        manifest["artifact_integrity"] = {
            name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "manifest.json"
        }
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return bundle


def refused(store: WorkspaceStore, path: Path, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        store.import_chain(path)
    assert set(counts(store, "runs", "pipelines", "chains", "artifacts").values()) == {0}
    assert not list((store.workspace_path / "artifacts").rglob("*.joblib"))


def in_manifest(**changes: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), **changes}).encode()

    return change


def in_chain(**changes: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["chain.json"] = json.dumps({**json.loads(members["chain.json"]), **changes}).encode()

    return change


def put(name: str, data: bytes | None) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        if data is None:
            del members[name]
        else:
            members[name] = data

    return change


MODEL = "artifacts/step_3_fold0.joblib"


@pytest.mark.parametrize(
    ("change", "integrity", "reason"),
    [
        (put("../../escape.joblib", b"x"), True, "outside of it"),
        (put("/etc/passwd", b"x"), True, "outside of it"),
        pytest.param(
            *(put("artifacts\\x.joblib", b"x"), True, "outside of it"),
            marks=pytest.mark.not_on("windows", reason="zipfile takes a backslash for a slash"),
        ),
        (put("manifest.json", None), True, "no manifest.json"),
        (put("manifest.json", b"[1]"), False, "no JSON object"),
        (put("manifest.json", b"{"), False, "no JSON"),
        (put("chain.json", b"[" * 100_000), True, "no JSON"),
        (put(MODEL, pickle.dumps("another")), False, "does not have the hash"),
        (put(MODEL, None), False, "it lacks artifacts/step_3_fold0"),
        (put("artifacts/step_1_sub7.joblib", b"x"), False, "does not name artifacts/step_1_sub7"),
        (put(MODEL, None), True, "uses the operator"),
        (put(MODEL, b"no pickle"), True, "cannot be read"),
        (put("artifacts/step_3_fold0.h5", b"x"), True, r"stored as \.h5"),
        (put("fold_weights.json", b'{"0": 1.0, "1": 2.0}'), True, "weighs its folds"),
        (in_manifest(bundle_format_version="2.0"), True, "reads up to 1.0"),
        (in_manifest(bundle_format_version="new"), True, "its format is new"),
        (in_manifest(partitioner_routing={"1": {}}), True, "by their metadata"),
        (in_manifest(artifact_integrity=[1]), False, "no table of hashes"),
        (in_manifest(model_class=5), True, "model_class is no text"),
        (in_manifest(model_class="\ud800"), True, "is no JSON"),
        (in_chain(steps=None), True, "has no steps"),
        (in_chain(steps=[{"operator_class": "x"}]), True, "without a step_idx"),
        (in_chain(model_step_idx=9), True, "cannot be replayed"),
    ],
)
def test_what_is_wrong_with_a_bundle_is_said_and_nothing_is_written(
    store: WorkspaceStore, bundle: Path, change: Callable[[Members], None], integrity: bool, reason: str
) -> None:
    refused(store, rewritten(bundle, change, integrity), reason)


def test_every_truncation_is_refused(store: WorkspaceStore, bundle: Path) -> None:
    whole = bundle.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        bundle.write_bytes(whole[:length])
        refused(store, bundle, "no whole ZIP")


def test_a_flipped_byte_is_refused(store: WorkspaceStore, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        place = archive.getinfo(MODEL).header_offset + 80
    content = bytearray(bundle.read_bytes())
    content[place] ^= 0xFF
    bundle.write_bytes(content)
    refused(store, bundle, "no whole ZIP")


def test_a_member_that_is_there_twice_is_refused(store: WorkspaceStore, bundle: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(bundle, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(MODEL, b"another")
    refused(store, bundle, "more than once")


@pytest.mark.long
def test_a_bomb_is_refused_by_what_it_states(store: WorkspaceStore, bundle: Path) -> None:
    refused(
        store,
        rewritten(bundle, put("artifacts/step_1_sub1.joblib", bytes(300 * 2**20))),
        "more than the 268435456 allowed",
    )
    with pytest.raises(BundleError, match="more than the 1000 allowed"):
        inspect_bundle(bundle, max_bytes=1000)


def test_a_member_that_states_less_than_it_holds_is_refused(store: WorkspaceStore, bundle: Path) -> None:
    rewritten(bundle, put("artifacts/step_1_sub1.joblib", bytes(2**20)))
    content = bundle.read_bytes()
    assert content.count(struct.pack("<I", 2**20)) == 2
    bundle.write_bytes(content.replace(struct.pack("<I", 2**20), struct.pack("<I", 2**10)))
    refused(store, bundle, "no whole ZIP")


def test_links_and_encrypted_members_are_refused(store: WorkspaceStore, bundle: Path) -> None:
    good = bundle.read_bytes()
    link = zipfile.ZipInfo("artifacts/link.joblib")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(store, bundle, "is a link")
    bundle.write_bytes(good)
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("locked", b"x")
        archive.getinfo("locked").flag_bits |= 1
    refused(store, bundle, "is encrypted")


ODD = (None, True, -1, 2**70, "", "../x", [], {}, [1], {"a": 1}, "\ud800", float("nan"))


def bent(value: Any, dice: random.Random) -> Any:
    """JSON with some of its values exchanged for odd ones, some gone."""
    if dice.random() < 0.15:
        return dice.choice(ODD)
    if isinstance(value, dict):
        return {
            key: bent(item, dice) if dice.random() < 0.15 else item
            for key, item in value.items()
            if dice.random() > 0.03
        }
    if isinstance(value, list):
        return [bent(item, dice) if dice.random() < 0.2 else item for item in value if dice.random() > 0.05]
    return value


def damaged(bundle: Path, dice: random.Random) -> None:
    """Other bytes somewhere in the file, or members that were changed before they were packed, with no hashes to
    tell.
    """
    if dice.random() < 0.3:
        content = bytearray(bundle.read_bytes())
        for _ in range(3):
            content[dice.randrange(len(content))] = dice.randrange(256)
        bundle.write_bytes(content)
        return

    def change(members: Members) -> None:
        for name, data in list(members.items()):
            if name.endswith(".json"):
                members[name] = json.dumps(bent(json.loads(data), dice)).encode() if dice.random() < 0.5 else data
            elif dice.random() < 0.1:
                members[name] = data[: dice.randrange(len(data))]
        told = json.loads(members["manifest.json"])
        if isinstance(told, dict):
            members["manifest.json"] = json.dumps(
                {key: item for key, item in told.items() if key != "artifact_integrity"}
            ).encode()

    rewritten(bundle, change, integrity=False)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(round(8 * SHARE)))
def test_whatever_is_damaged_is_told_as_such_and_leaves_nothing(
    store: WorkspaceStore, tmp_path: Path, good_bundle: Path, seed: int
) -> None:
    dice, written = random.Random(seed), Path(__file__).parent.parent / "data" / "bundles"
    bundles, refusals = [good_bundle, *sorted(written.glob("*.n4a"))], 0
    for _ in range(40):
        bundle = Path(shutil.copy(dice.choice(bundles), tmp_path / "model.n4a"))
        damaged(bundle, dice)
        before = counts(store, "runs", "chains", "artifacts")
        for look in (inspect_bundle, store.import_chain):
            try:
                look(bundle)
            except BundleError:
                refusals += 1
                assert counts(store, "runs", "chains", "artifacts") == before
    assert refusals > 20


def test_looking_and_importing_load_no_library_that_a_bundle_names(store: WorkspaceStore) -> None:
    code = """
import sys
from pathlib import Path
from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.errors import BundleError
with WorkspaceStore(sys.argv[1]) as store:
    for path in sorted(Path(sys.argv[2]).glob("*.n4a")):
        try:
            assert any(name.startswith("sklearn.") for name in inspect_bundle(path).globals)
            store.import_chain(path)
        except BundleError:
            pass
    assert store.sql("SELECT count(*) FROM chains").item() > 5
assert not {"sklearn", "scipy", "nirs4all"} & set(sys.modules)
"""
    store.close()
    finish(child(code, store.workspace_path, Path(__file__).parent.parent / "data" / "bundles"))


class Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_looking_and_importing_run_nothing_of_a_bundle(store: WorkspaceStore, bundle: Path, tmp_path: Path) -> None:
    rewritten(bundle, put(MODEL, pickle.dumps(Writes(tmp_path / "made"))))
    assert f"{os.mkdir.__module__}.mkdir" in inspect_bundle(bundle).globals
    chain = store.import_chain(bundle)
    store.close()
    for trusted in ("workspace", "none", ["sklearn", "numpy"]):
        with (
            WorkspaceStore.open_readonly(store.workspace_path, trusted=trusted) as reader,
            pytest.raises(UntrustedArtifactError),
        ):
            reader.replay_chain(chain, spectra())
    assert not (tmp_path / "made").exists()


def test_classes_that_a_bundle_names_without_holding_them_are_not_imported(store: WorkspaceStore, bundle: Path) -> None:
    steps = [
        {
            "step_idx": 1,
            "operator_class": "antigravity.Transformer",
            "params": {},
            "artifact_id": None,
            "stateless": True,
        },
        {"step_idx": 3, "operator_class": "Ridge", "params": {}, "artifact_id": None, "stateless": False},
    ]
    refused(store, rewritten(bundle, in_chain(steps=steps, shared_artifacts={})), "must hold its operators")


def test_the_report_names_header_members_classes_and_globals(bundle: Path) -> None:
    report = inspect_bundle(bundle)
    assert report.manifest["model_class"] == "Ridge"
    classes = {member.name: member.class_name for member in report.members}
    assert classes[MODEL] == "sklearn.linear_model._ridge.Ridge"
    assert classes["chain.json"] == ""
    assert report.globals == tuple(sorted({name for member in report.members for name in member.globals}))
    with zipfile.ZipFile(bundle) as archive:
        assert [(member.name, member.size_bytes) for member in report.members] == [
            (info.filename, info.file_size) for info in archive.infolist()
        ]
        assert all(member.sha256 == hashlib.sha256(archive.read(member.name)).hexdigest() for member in report.members)


def with_directory(bundle: Path, *, times: int) -> None:
    """The same archive with each entry of its list of members that often, where it has one member once."""
    data = bundle.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", data[end + 12 : end + 20])
    listed = data[start : start + size] * times
    tail = bytearray(data[end:])
    tail[12:20] = struct.pack("<II", len(listed), start)
    bundle.write_bytes(data[:start] + listed + tail)


@pytest.mark.parametrize(
    ("times", "words"), [(1000, "more than the 10000|more than once"), (20_000, "list of members")]
)
def test_a_list_of_very_many_members_is_refused_before_each_becomes_an_object(
    store: WorkspaceStore, bundle: Path, times: int, words: str
) -> None:
    with_directory(bundle, times=times)
    tracemalloc.start()
    try:
        refused(store, bundle, words)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_members_that_lie_over_each_other_give_no_more_than_they_state(store: WorkspaceStore, bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        first, second = archive.infolist()[:2]
    place = content.rindex(struct.pack("<I", second.header_offset) + second.filename.encode())
    content[place : place + 4] = struct.pack("<I", first.header_offset)
    bundle.write_bytes(content)
    refused(store, bundle, "no whole ZIP file \\(two of its members lie in one place")


def test_a_bundle_that_is_gone_is_told_wherever_it_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        limit_of(tmp_path / "removed.n4a", None)


@pytest.mark.parametrize("read", [inspect_bundle, read_bundle])
def test_each_member_is_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., object]) -> None:
    hashed: list[int] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": hashed.append(len(data)) or sha256(data))
    read(bundle)
    with zipfile.ZipFile(bundle) as archive:
        assert 0 < sum(hashed) <= sum(info.file_size for info in archive.infolist())


@pytest.mark.parametrize("stated", [{}, [], None, 7, "exec"])
def test_a_format_that_is_none_is_told_by_the_name_of_the_member(
    store: WorkspaceStore, bundle: Path, stated: object
) -> None:
    def change(members: Members) -> None:
        manifest = json.loads(members["manifest.json"])
        for entry in manifest["artifacts"].values():
            entry["format"] = stated
        members["manifest.json"] = json.dumps(manifest).encode()

    assert store.import_chain(rewritten(bundle, change))
    assert {row[0] for row in store.sql("SELECT format FROM artifacts").rows()} == {"joblib"}
