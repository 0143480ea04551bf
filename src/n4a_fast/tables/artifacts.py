"""Artifact rows: what is stored where, for which cache key, and who holds it.

An artifact is kept by the chains that refer to it and by the session that saved it, until the
pipelines of that session have ended. The id of a saved object is the hash of its bytes: equal
bytes are one file and one id, a known id never comes to mean other content, and nobody registers
other content under an id of that form. Stored rows are kept in memory for as long as the file stays
attached, since nobody else can change them meanwhile.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.checkup import ArtifactDescription, described
from n4a_fast.artifacts.files import ArtifactFiles, Content, names_its_content
from n4a_fast.artifacts.objects import ObjectCache
from n4a_fast.artifacts.settings import AgreedTrust, ArtifactSettings
from n4a_fast.artifacts.trust import Trust
from n4a_fast.engine.connection import Database
from n4a_fast.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ConflictError,
    NotFoundError,
    StoreError,
)
from n4a_fast.schema.columns import STORED_ARTIFACTS
from n4a_fast.schema.ddl import ARTIFACTS
from n4a_fast.tables.artifact_holds import ArtifactHolds
from n4a_fast.tables.artifact_rows import PROMISED, Row, Written, described_by, row_of, saved_row
from n4a_fast.tables.found_artifacts import FoundRows
from n4a_fast.tables.rows import PendingRows, forget_oldest
from n4a_fast.tables.stored_ids import StoredIds
from n4a_fast.values import checks

_GET = "SELECT * FROM stored_artifacts WHERE artifact_id = ?"
_POSITION = "SELECT rowid FROM stored_artifacts WHERE artifact_id = ?"
_FROM_POSITION = f"SELECT {', '.join(STORED_ARTIFACTS.names)} FROM stored_artifacts WHERE rowid BETWEEN ? AND ?"
_REFERENCES = f"SELECT ref_count FROM ({ARTIFACTS}) WHERE artifact_id = ?"
_ADDRESSES = """SELECT artifact_id, artifact_path, content_hash FROM stored_artifacts WHERE origin <> 'promised'
ORDER BY artifact_path"""
_GET_MANY = f"SELECT {', '.join(STORED_ARTIFACTS.names)} FROM stored_artifacts WHERE list_contains(?, artifact_id)"
_FIND_CACHED = (
    "SELECT artifact_id FROM stored_artifacts WHERE chain_path_hash = ? AND input_data_hash = ? ORDER BY created_at"
    " DESC, artifact_id LIMIT 1"
)
_INVALIDATE = (
    "UPDATE stored_artifacts SET chain_path_hash = NULL, input_data_hash = NULL WHERE dataset_hash = ? AND"
    " chain_path_hash IS NOT NULL"
)
_CACHE_KEY = ("chain_path_hash", "input_data_hash", "dataset_hash")
_KNOWN_AT_MOST = 100_000
_READ_AHEAD = 512  # rows saved after the one that is asked for: a sweep is loaded in the order in which it was saved


class Artifacts(PendingRows):
    """The `stored_artifacts` and `artifact_holds` tables, and the files behind them."""

    def __init__(self, database: Database, files: ArtifactFiles) -> None:
        super().__init__(database, "stored_artifacts", STORED_ARTIFACTS)
        self.files = files
        self._found = FoundRows(database, "found_artifacts", STORED_ARTIFACTS)
        self._stored: dict[str, Row] = {}  # by id; bounded
        self._stored_as_of = -1  # the attachment during which they were read
        self._forgotten = 0  # how often they were given up
        self.objects = ObjectCache()
        self.agreed = AgreedTrust()
        self._ids = StoredIds(database)
        self._holds = ArtifactHolds(database, files.session)
        self._noted: set[str] = set()  # held, and with a row that is pending or stored

    def use(self, settings: ArtifactSettings) -> None:
        """Settings of one more store on this folder, until it lets go of them."""
        self.agreed.use(settings)
        self.objects.limit = max(self.objects.limit, settings.object_cache_bytes)

    @property
    def trust(self) -> Trust:
        """What the stores on this folder agree on."""
        return self.agreed.trust

    def save(
        self,
        obj: Any,
        operator_class: str,
        artifact_type: str,
        format_name: str,
        cache_key: dict[str, str] | None = None,
        *,
        compress: bool = False,
    ) -> str:
        """Store an object under the hash of its bytes; the same bytes give the same id."""
        described = described_by(operator_class, artifact_type, cache_key or {})
        described["libraries"] = codec.libraries(type(obj).__module__.partition(".")[0])
        return self._save(codec.chunks(obj, format_name), format_name, "saved", compress, described)

    def save_bytes(self, data: bytes, operator_class: str, artifact_type: str, format_name: str, *, origin: str) -> str:
        """Store bytes that are already serialised, without loading them.

        `origin` is "saved" for what this process pickled, "imported" for what came from outside. Content that
        was ever saved here counts as saved, since it is byte for byte what this workspace itself made.
        """
        codec.check_format(format_name)
        return self._save([data], format_name, origin, False, described_by(operator_class, artifact_type, {}))

    def begin_registering(self, written: Sequence[Written]) -> None:
        """Let a thread begin with the files that `register` will verify: it is called next for these, before the
        flush.
        """
        self._claim(written)
        self.files.begin_verifying(each.path for each in written)

    def _claim(self, written: Sequence[Written]) -> None:
        self.files.claims.claim(
            *(
                checks.text(value, name)
                for each in written
                for name, value in (("artifact_id", each[0]), ("path", each[1]))
            )
        )

    def register(
        self, written: Sequence[Written], *, promised: bool = False, unstored: Collection[str] = ()
    ) -> list[str | StoreError]:
        """Note files that are already in the folder, once their content is verified: the id of each, or what stands
        against it.

        A known id with the same content is a no-op. The disk begins with the files at once. A file that is
        not there is noted, too, if it is `promised`: registered again when it has come, it is verified. Of the ids in
        `unstored` the caller knows that none is in the tables, or in the log of another process.
        """
        if not all(map(self._is_noted, written)):
            self._claim(written)
            if asked := [each.artifact_id for each in written if each.artifact_id not in unstored]:
                self._look_up(asked)
        results = [self._register(each, promised, each.artifact_id in unstored) for each in written]
        self.files.begin_sync()
        return results

    def _is_noted(self, written: Written) -> bool:
        """Whether this session holds the artifact and memory knows its row: nobody has to be asked."""
        return (
            isinstance(written.artifact_id, str)
            and written.artifact_id in self._noted
            and self._current(written.artifact_id) is not None
        )

    def _register(self, written: Written, promised: bool, unstored: bool) -> str | StoreError:
        checks.text(written.content_hash, "content_hash")
        known = (self._rows.get if unstored else self._current)(written.artifact_id)
        if known is not None and known["content_hash"] != written.content_hash:
            return ConflictError("artifact", written.artifact_id, known["content_hash"], written.content_hash)
        if not names_its_content(written.artifact_id, written.content_hash, written.path):
            return ConflictError("artifact", written.artifact_id, "of this hash at its address", written.content_hash)
        if known is None or known["origin"] == PROMISED:
            try:
                self.put(self._row_of_file(written, known, promised))
            except StoreError as error:
                return error
        self._hold(written.artifact_id)
        return written.artifact_id

    def _row_of_file(self, written: Written, known: Row | None, promised: bool) -> Row:
        """The row of a file that is verified now, or of one that is promised and not there yet."""
        row = row_of(written, "registered")
        if not promised or self.files.is_there(written.path):
            self.files.adopt_verified(written.artifact_id, written.path, written.content_hash)
            return row
        return known or {**row, "origin": PROMISED}

    def is_promised(self, artifact_id: str) -> bool:
        """Whether an artifact that was just registered has no file yet."""
        row = self._rows.get(artifact_id)
        return row is not None and row["origin"] == PROMISED

    def _look_up(self, artifact_ids: Iterable[str]) -> None:
        """Let memory hold the rows of those of these artifacts that are stored, by whatever process."""
        ids = self._ids.known()
        self._keep_stored({})  # the file is attached: what is pending or known counts
        asked = [
            artifact_id
            for artifact_id in artifact_ids
            if self._current(artifact_id) is None and (ids is None or artifact_id in ids)
        ]
        if asked:
            found = self._database.rows(_GET_MANY, (asked,), own=False)
            rows = [dict(zip(STORED_ARTIFACTS.names, values, strict=True)) for values in found]
            self._keep_stored({row["artifact_id"]: row for row in rows})

    def claim(self, artifact_ids: set[str]) -> None:
        """A chain in memory names these, stored or not: no collection takes them until it is in its table."""
        if new := artifact_ids - self._noted:
            self.files.claims.claim(*sorted(new))

    def load(self, artifact_id: str, trust: Trust | None = None) -> Any:
        """The verified object, the caller's own; this runs the code that its pickle names, as far as it is trusted."""
        row = self.require(artifact_id)
        return self._loaded(row, self._read_file(row), trust or self.trust)

    def _loaded(self, row: Row, data: Content, trust: Trust) -> Any:
        artifact_id = row["artifact_id"]
        try:
            return trust.loads(artifact_id, data, row["format"], row["origin"], row["operator_class"])
        except (pickle.UnpicklingError, EOFError) as error:  # its bytes were no pickle when they were registered either
            raise ArtifactCorruptError(self.files.path(row["artifact_path"]), "a pickle", f"none ({error})") from error

    def shared(self, artifact_id: str) -> Any:
        """Like `load`, one object for all who ask for this content: they must not change it."""
        row = self.require(artifact_id)
        key = (row["artifact_path"], row["content_hash"], row["format"], row["origin"], self.trust)
        if (found := self.objects.get(key)) is not None and self.files.changed_at(row["artifact_path"]):
            return found[0]  # a file that is gone is told at once, not when memory has run out
        data = self._read_file(row)
        obj = self._loaded(row, data, self.trust)
        self.objects.put(key, obj, len(data))  # whatever its row says
        return obj

    def describe(self, artifact_id: str) -> ArtifactDescription:
        row = self.require(artifact_id)
        ((ref_count,),) = self._database.rows(_REFERENCES, (artifact_id,))
        return described(self.files, row, ref_count)

    def addresses(self) -> list[tuple[Any, ...]]:
        """Id, path and hash of every stored artifact, in the order of the paths: files of one folder are read
        together.
        """
        return self._database.rows(_ADDRESSES)

    def content(self, artifact_id: str) -> tuple[bytes, str]:
        """The verified bytes of an artifact, unpacked but not loaded, and their format."""
        row = self.require(artifact_id)
        return bytes(self._read_file(row)), row["format"]

    def _read_file(self, row: Row) -> Content:
        """Its verified content; a promise that was not kept is told as such."""
        artifact_id, path = row["artifact_id"], row["artifact_path"]
        try:
            return self.files.read(artifact_id, path, row["content_hash"])
        except ArtifactMissingError as error:
            if row["origin"] != PROMISED:
                raise
            raise ArtifactMissingError(artifact_id, self.files.path(path), promised=True) from error

    def path_of(self, artifact_id: str) -> Path:
        return self.files.path(self.require(artifact_id)["artifact_path"])

    def require(self, artifact_id: str) -> Row:
        """The artifact's row; NotFoundError without one."""
        row = self._row(artifact_id)
        if row is None:
            raise NotFoundError("artifact", artifact_id)
        return row

    def set_cache_key(self, artifact_id: str, chain_path_hash: str, input_data_hash: str, dataset_hash: str) -> None:
        self.put(
            {
                **self.require(artifact_id),
                "chain_path_hash": checks.text(chain_path_hash, "chain_path_hash"),
                "input_data_hash": checks.text(input_data_hash, "input_data_hash"),
                "dataset_hash": checks.text(dataset_hash, "dataset_hash"),
            }
        )

    def find_cached(self, chain_path_hash: str, input_data_hash: str) -> str | None:
        """The id saved last under this cache key, or None."""
        found = self._database.rows(_FIND_CACHED, (chain_path_hash, input_data_hash))
        return found[0][0] if found else None

    def invalidate_in_transaction(self, dataset_hash: str) -> int:
        self.forget_known()
        return self._database.execute(_INVALIDATE, (dataset_hash,))

    def release(self) -> None:
        """No pipeline of this session is open any more: only chains keep its artifacts from now on."""
        self._holds.release()
        self._noted.clear()

    def fresh(self) -> dict[str, Any]:
        return {**super().fresh(), **self._found.fresh(), **self._holds.fresh()}

    def __len__(self) -> int:
        return max(len(self._rows), len(self._found), len(self._holds))

    def mark_logged(self) -> None:
        super().mark_logged()
        self._found.mark_logged()
        self._holds.mark_logged()

    def replay(self, content: dict[str, Any]) -> None:
        super().replay(content)
        self._found.replay(content)
        self._holds.replay(content)

    def pending(self) -> dict[str, pa.Table]:
        return {**super().pending(), **self._found.pending(), **self._holds.pending()}

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        super().write_in_transaction(tables, beyond)
        self._found.write_in_transaction(tables)
        rows, as_of = self._rows, self._forgotten
        self._database.after_commit(lambda: self._keep_stored(rows) if self._forgotten == as_of else None)
        self._holds.write_in_transaction(tables)

    def clear(self) -> None:
        super().clear()
        self._found.clear()
        self._holds.clear()

    def forget_known(self) -> None:
        """Rows may have gone: ids must be looked up again."""
        super().forget_known()
        self._stored.clear()
        self._noted.clear()
        self.forget_ids()
        self._forgotten += 1

    def forget_ids(self) -> None:
        """Rows of other processes have come: which ids there are must be asked anew."""
        self._ids.forget()

    def keep_stored(self) -> None:
        """Rows in memory are known when they leave it, too."""
        self._keep_stored(self._rows)

    def release_claims(self) -> None:
        """All of this is in its tables, which tell a collection what is in use; a log would not be enough."""
        self.files.claims.release()

    def close(self) -> None:
        """Nothing of this process is claimed any more."""
        self.files.claims.close()

    def _save(
        self, pieces: Sequence[Content], format_name: str, origin: str, compress: bool, described: dict[str, str]
    ) -> str:
        artifact_id, path, is_new = self.files.add(pieces, codec.EXTENSIONS[format_name], compress=compress)
        row = saved_row(artifact_id, path, format_name, sum(map(len, pieces)), origin, described)
        known = (
            None
            if is_new
            else self._row(artifact_id, own=False)
            if _CACHE_KEY[0] in described
            else self._current(artifact_id)
        )
        if known is not None:
            keys = {name: value for name, value in described.items() if name in _CACHE_KEY}
            changed = {**known, **keys, "origin": origin if origin == "saved" else known["origin"]}
            if changed != known:
                self.put(changed)
        elif is_new or _CACHE_KEY[0] in described:
            self.put(row)
        elif artifact_id not in self._noted:
            self._found.put(row)  # no look-up, which may have to wait for another process
        self._hold(artifact_id)
        return artifact_id

    def _row(self, artifact_id: str, own: bool = True) -> Row | None:
        """The pending or stored row; `own=False` leaves the log of this process alone, whose rows are all in
        memory.
        """
        if (row := self._current(artifact_id)) is not None or not isinstance(artifact_id, str):
            return row
        self._keep_stored({row["artifact_id"]: row for row in self._read(artifact_id, own)})
        return self._current(artifact_id)

    def _current(self, artifact_id: str) -> Row | None:
        """The row if memory knows for sure that it is pending or stored."""
        if self._stored_as_of == self._database.attached:
            return self._rows.get(artifact_id) or self._stored.get(artifact_id)
        return self._fresh.get(artifact_id)

    def _read(self, artifact_id: str, own: bool) -> list[Row]:
        if not own:
            row = self._database.row(_GET, (artifact_id,), own=False)
            return [] if row is None else [row]
        position = self._database.rows(_POSITION, (artifact_id,))
        if not position:
            return []
        found = self._database.rows(_FROM_POSITION, (position[0][0], position[0][0] + _READ_AHEAD))
        return [dict(zip(STORED_ARTIFACTS.names, values, strict=True)) for values in found]

    def _keep_stored(self, rows: dict[str, Row]) -> None:
        if self._stored_as_of != self._database.attached:
            self._stored.clear()  # another process may have changed them
            self._stored_as_of = self._database.attached
        self._stored.update(rows)
        self._ids.add(rows)
        forget_oldest(self._stored, _KNOWN_AT_MOST)

    def _hold(self, artifact_id: str) -> None:
        self._holds.hold(artifact_id)
        self._noted.add(artifact_id)
