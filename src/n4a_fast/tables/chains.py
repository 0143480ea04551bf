"""Chains: the ordered steps from raw spectra to a prediction, and the artifacts they use.

The artifacts of a chain may be registered after it (nirs4all does so), so their ids are not
checked here; a replay names the one that is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.engine.frames import frame_of, types_of
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreFormatError
from n4a_fast.schema.columns import CHAIN_ARTIFACTS, CHAINS, table_of
from n4a_fast.tables.rows import ONE_OF, PendingRows
from n4a_fast.tables.stale_chains import note_in_transaction
from n4a_fast.values import checks, jsontext
from n4a_fast.values.chain_input import read_input
from n4a_fast.values.ids import uuid7

_JSON = ("steps", "fold_artifacts", "shared_artifacts", "branch_path", "input")
_REFERRING = ("steps", "fold_artifacts", "shared_artifacts")
_OF_PIPELINE = "SELECT * FROM chains WHERE pipeline_id = ? ORDER BY created_at, chain_id"
_OF_PIPELINES = "SELECT * FROM chains WHERE list_contains(?, pipeline_id) ORDER BY chain_id"
_OF_IDS = "SELECT * FROM chains SEMI JOIN batch ON batch.chain_id = chains.chain_id"
_STORED = "SELECT chain_id FROM chains SEMI JOIN batch ON batch.chain_id = chains.chain_id"
_LINK = "INSERT INTO chain_artifacts BY NAME SELECT * FROM batch"
_LINK_AGAIN = f"{_LINK} b ANTI JOIN chain_artifacts c ON c.chain_id = b.chain_id AND c.artifact_id = b.artifact_id"
_RELEASE = """UPDATE chain_artifacts c SET released = true FROM batch b
WHERE c.chain_id = b.chain_id AND c.artifact_id = b.artifact_id"""
_UNLINK_THESE = f"DELETE FROM chain_artifacts WHERE {ONE_OF.format('chain_id', 1)}"
_DELETE_THESE = f"DELETE FROM chains WHERE {ONE_OF.format('chain_id', 1)}"
_DELETE = f"DELETE FROM chains WHERE {ONE_OF.format('pipeline_id', 1)} RETURNING chain_id"


class Chains(PendingRows):
    """The `chains` table and its references to artifacts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "chains", CHAINS)

    def save(
        self,
        pipeline_id: str,
        steps: list[dict[str, Any]],
        model_step_idx: int,
        fold_artifacts: dict[Any, Any],
        shared_artifacts: dict[Any, Any],
        branch_path: list[int] | None,
        source_index: int | None,
        chain_id: str | None = None,
        input: Any = None,
        **texts: str,
    ) -> str:
        if not isinstance(steps, list | tuple) or not all(isinstance(step, dict) for step in steps):
            raise InvalidInputError("steps must be a list of dicts with step_idx, operator_class, params, ...")
        row = {
            "chain_id": chain_id or uuid7(),
            "pipeline_id": pipeline_id,
            "steps": jsontext.encode(list(steps), "steps"),
            "model_step_idx": checks.integer(model_step_idx, "model_step_idx"),
            "fold_artifacts": jsontext.encode(checks.mapping(fold_artifacts, "fold_artifacts"), "fold_artifacts"),
            "shared_artifacts": jsontext.encode(
                checks.mapping(shared_artifacts, "shared_artifacts"), "shared_artifacts"
            ),
            "branch_path": jsontext.encode(branch_path, "branch_path"),
            "source_index": checks.optional_integer(source_index, "source_index"),
            "created_at": checks.now(),
            "input": None if input is None else jsontext.encode(read_input(input).as_json() or None, "input"),
        }
        row.update({name: checks.text(value, name) for name, value in texts.items()})
        self.put(row)
        return str(row["chain_id"])

    def references(self, chain_id: str) -> set[str]:
        """Ids of all artifacts that a pending chain refers to."""
        return artifacts_of(self._rows[chain_id])

    def require(self, *chain_ids: str) -> None:
        """NotFoundError unless each chain is stored or pending."""
        if len(chain_ids) == 1 and chain_ids[0] in self._rows:
            return  # as of most predictions
        if unknown := self.unknown(chain_ids):
            raise NotFoundError("chain", unknown[0])

    def find(self, chain_id: str) -> dict[str, Any] | None:
        """The chain with its JSON columns decoded, or None."""
        row = self.stored_row(chain_id)
        return row and _decoded(row)

    def find_many(self, chain_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of these chains that there are, by id, as `find` gives them."""
        return {
            row["chain_id"]: _decoded(row) for row in self._database.select(_OF_IDS, batch=_ids(chain_ids)).to_pylist()
        }

    def stored(self, chain_ids: Sequence[str]) -> set[str]:
        """Which of these chains there are."""
        return set(self._database.select(_STORED, batch=_ids(chain_ids))["chain_id"].to_pylist())

    def of_pipeline(self, pipeline_id: str) -> pl.DataFrame:
        return self._database.frame(_OF_PIPELINE, (pipeline_id,))

    def pending_frame(self, chain_ids: Sequence[str]) -> pl.DataFrame | None:
        """These chains as `of_pipeline` gives them, if there are any and all are in memory; None otherwise."""
        rows = [self._rows.get(chain_id) for chain_id in chain_ids]
        if not rows or None in rows:
            return None
        return frame_of([tuple((row or {}).get(name) for name in CHAINS.names) for row in rows], self._frame_types)

    @cached_property
    def _frame_types(self) -> pl.Schema:
        return types_of(CHAINS)

    def of_pipelines(self, pipeline_ids: list[str]) -> list[dict[str, Any]]:
        """Chains of several pipelines, with `fold_artifacts` and `shared_artifacts` decoded."""
        rows = self._database.frame(_OF_PIPELINES, (pipeline_ids,)).to_dicts()
        return [
            {**row, **{name: jsontext.decode(row[name]) or {} for name in ("fold_artifacts", "shared_artifacts")}}
            for row in rows
        ]

    def pending(self) -> dict[str, pa.Table]:
        tables, links = super().pending(), links_of(self.values())
        return {**tables, "chain_artifacts": links} if links.num_rows else tables

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        super().write_in_transaction(tables, beyond)
        are_new = self._table in beyond
        if self._table in tables and not are_new:
            note_in_transaction(self._database, tables[self._table]["chain_id"].to_pylist())
        if "chain_artifacts" in tables:
            # a chain may be written once more, as after a commit whose end was not told
            self._database.insert(_LINK if are_new else _LINK_AGAIN, batch=tables["chain_artifacts"])

    def take_back_in_transaction(self, chain_id: str) -> None:
        """Bring a stored chain back into memory, to be changed; NotFoundError without one."""
        row = self.stored_row(chain_id)
        if row is None:
            raise NotFoundError("chain", chain_id)
        self._database.execute(_UNLINK_THESE, ([chain_id],))
        self.put(row)

    def rename_artifacts(self, chain_id: str, names: dict[str, str]) -> None:
        """Let a pending chain refer to other artifacts: old id to new."""
        row = self._rows[chain_id]
        self.put(
            {**row, **{name: jsontext.encode(renamed(jsontext.decode(row[name]), names), name) for name in _REFERRING}}
        )

    def release_in_transaction(self, links: Sequence[tuple[str, str]]) -> None:
        """Chains stop keeping artifacts alive: pairs of their ids."""
        self._database.insert(_RELEASE, batch=table_of([(*link, True) for link in links], CHAIN_ARTIFACTS))

    def delete_in_transaction(self, pipeline_ids: list[str]) -> int:
        """Remove the chains of pipelines; how many there were."""
        gone = [chain_id for (chain_id,) in self._database.rows(_DELETE, (pipeline_ids,))]
        note_in_transaction(self._database, gone)
        if gone:
            self._database.execute(_UNLINK_THESE, (gone,))
        return len(gone)

    def delete_these_in_transaction(self, chain_ids: list[str]) -> int:
        """Remove these chains, which no prediction belongs to; how many there were."""
        self._database.execute(_UNLINK_THESE, (chain_ids,))
        return self._database.execute(_DELETE_THESE, (chain_ids,))


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its JSON columns decoded; StoreFormatError for one of another form, as somebody else may write."""
    try:
        chain = {**row, **{name: jsontext.decode(row[name]) for name in _JSON}}
    except InvalidInputError as error:
        raise _of_another_form(row, str(error)) from error
    steps = chain["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _of_another_form(row, "its steps are no list of steps")
    if not all(isinstance(chain[name] or {}, dict) for name in ("fold_artifacts", "shared_artifacts")):
        raise _of_another_form(row, "its artifacts are no table of ids")
    if not isinstance(row["model_step_idx"], int):
        raise _of_another_form(row, "it does not say which step is its model")
    return chain


def _of_another_form(row: dict[str, Any], reason: str) -> StoreFormatError:
    return StoreFormatError(
        f"chain {row['chain_id']!r} is stored in another form: {reason}; restore the store from a copy, or delete the"
        " chain"
    )


def _ids(chain_ids: Sequence[str]) -> pa.Table:
    return pa.table({"chain_id": pa.array(chain_ids, pa.string())})


def links_of(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """The rows of `chain_artifacts` of new chains."""
    links: list[tuple[object, ...]] = [
        (row["chain_id"], artifact, False) for row in rows for artifact in sorted(artifacts_of(row))
    ]
    return table_of(links, CHAIN_ARTIFACTS)


def artifacts_of(row: dict[str, Any]) -> set[str]:
    """Ids of all artifacts that a pending chain refers to."""
    if row["fold_artifacts"] == row["shared_artifacts"] == "{}" and "artifact_id" not in row["steps"]:
        return set()  # looked at twice for each chain of a sweep
    return artifacts_used(
        {name: jsontext.decode(row[name]) for name in ("steps", "fold_artifacts", "shared_artifacts")}
    )


def artifacts_used(chain: Mapping[str, Any]) -> set[str]:
    """The same of a chain that was found."""
    named = [step.get(key) for step in chain["steps"] for key in ("artifact_id", "artifact_ids")]
    return {*artifact_ids(chain["fold_artifacts"]), *artifact_ids(chain["shared_artifacts"]), *artifact_ids(named)}


def renamed(value: Any, names: dict[str, str]) -> Any:
    """A reference of a chain with each artifact id that `names` has replaced."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    return [renamed(item, names) for item in value] if isinstance(value, list | tuple) else value


def artifact_ids(value: Any) -> Iterator[str]:
    """Every artifact id in a reference of a chain: a text, or lists and dicts of them at any depth.

    Keys that start with an underscore are metadata; of these only `_source_map` names artifacts.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from artifact_ids(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "_source_map" or not key.startswith("_"):
                yield from artifact_ids(item)


def with_artifacts(rows: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Steps and references of a chain with its artifact ids exchanged; those that `names` lacks stay."""
    steps = [
        {**step, **{key: _exchanged(step[key], names) for key in ("artifact_id", "artifact_ids") if key in step}}
        for step in rows["steps"]
    ]
    return {
        **rows,
        "steps": steps,
        **{key: _exchanged(rows[key], names) for key in ("fold_artifacts", "shared_artifacts")},
    }


def _exchanged(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_exchanged(item, names) for item in value]
    if isinstance(value, dict):
        return {
            key: _exchanged(item, names) if key == "_source_map" or not key.startswith("_") else item
            for key, item in value.items()
        }
    return value
