"""Chains whose cached scores and summaries are out of date: noted in the commit that changes them, and brought up to
date by the next read that may write.

A note is one row, so a drain pays a fraction of what it would pay to compute; a chain that is noted a hundred times
is computed once. It says where the chain's new predictions are by their `nk`; with what the cached row says of the
others, only the row groups between the two are read. Views give the right rows meanwhile (`schema/chain_scores`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.schema.chain_scores import NOTE_ALL, scores_of, summaries_of
from n4a_fast.tables.rows import ONE_OF

_PREDICTIONS_AT_ONCE = 2**18  # of the chains of one commit: Ctrl-C waits for it
_PREDICTIONS_AT_REST = 2**16  # that a store computes when it is closed: some tenths of a second
_MEMORY = 512 * 2**20  # bytes of DuckDB's own: it would come to hold all cached rows
_WORTH_REFRESHING = 2**10  # predictions; of fewer, a reader computes the rows itself in no time
_RANGES = 4  # of `nk`; each costs a comparison for every row that is left

_NOTE = "INSERT INTO stale_chains SELECT chain_id, first_nk, last_nk, predictions FROM changed"
_NOTE_IDS = "INSERT INTO stale_chains SELECT unnest(?), NULL, NULL, 0"
_NOTE_OF_PIPELINES = """INSERT INTO stale_chains
SELECT chain_id, NULL, NULL, 0 FROM chains WHERE list_contains(?, pipeline_id)"""
_ANY = "SELECT 1 FROM stale_chains LIMIT 1"
WITH_COMPUTED = "(FROM cached_chain_scores ANTI JOIN stale_chains USING (chain_id) UNION ALL BY NAME FROM computed)"
# where the predictions of stale chains are: those that were noted, and those of which the cached row knows
_STALE = """SELECT chain_id, min(first_nk) AS first_nk, max(last_nk) AS last_nk, sum(predictions) AS predictions
FROM (FROM stale_chains UNION ALL
    SELECT chain_id, first_nk, last_nk, predictions FROM cached_chain_summaries SEMI JOIN stale_chains USING (chain_id))
GROUP BY chain_id ORDER BY first_nk NULLS FIRST, chain_id"""
_PLACES = """SELECT first_nk, last_nk FROM stale_chains WHERE {these} UNION ALL
SELECT first_nk, last_nk FROM cached_chain_summaries WHERE {these}"""
_NOTED = "SELECT coalesce(sum(predictions), 0) FROM stale_chains"
_NOTE_WHERE = """INSERT INTO stale_chains SELECT chain_id, min(nk), max(nk), count(nk) FROM wanted
LEFT JOIN predictions USING (chain_id) GROUP BY chain_id"""
# where the predictions of all other chains are, and chains that have cached rows and no predictions
_CURRENT = """SELECT chain_id, min(nk) AS first_nk, max(nk) AS last_nk, count(nk) AS predictions
FROM (SELECT chain_id, nk FROM predictions WHERE chain_id IS NOT NULL UNION ALL
    SELECT chain_id, NULL FROM cached_chain_scores UNION ALL SELECT chain_id, NULL FROM cached_chain_summaries)
ANTI JOIN stale_chains USING (chain_id) GROUP BY chain_id ORDER BY first_nk NULLS FIRST, chain_id"""
_DIFFERENT = """SELECT DISTINCT coalesce(c.chain_id, d.chain_id) AS chain_id
FROM (FROM {table} SEMI JOIN wanted USING (chain_id)) c
FULL JOIN ({rows}) d ON {keys} WHERE (c.chain_id IS NULL OR d.chain_id IS NULL OR {differs})
    AND coalesce(c.chain_id, d.chain_id) NOT IN (SELECT chain_id FROM stale_chains)"""
_KEYS = {
    "cached_chain_scores": ("chain_id", "dataset_name", "metric"),
    "cached_chain_summaries": ("chain_id",),
}
_ROUNDING = 1e-9  # the order in which threads add changes the last digits
_FORGET = "DELETE FROM {table} WHERE chain_id IN (SELECT chain_id FROM wanted)"
_SOURCE = "FROM predictions SEMI JOIN wanted USING (chain_id) WHERE {ranges}"
NumberArray = np.ndarray[Any, np.dtype[np.uint64]]
_REFRESH = {"cached_chain_scores": scores_of, "cached_chain_summaries": summaries_of}
CACHED_TABLES = tuple(_REFRESH)


def note_predictions_in_transaction(database: Database, rows: pa.Table) -> None:
    """Predictions (`chain_id`, `nk`) are written: their chains are stale."""
    changed = places_by_chain(rows["chain_id"], rows["nk"].to_numpy())
    if changed.num_rows:
        database.insert(_NOTE, changed=changed)


def places_by_chain(names: pa.ChunkedArray, nk: np.ndarray[Any, Any]) -> pa.Table:
    """The first and the last `nk` of each chain, and how many; by numpy, since Arrow's own grouping takes 8 ms to be
    imported.
    """
    coded = (names if pa.types.is_dictionary(names.type) else names.dictionary_encode()).combine_chunks()
    codes = coded.indices.fill_null(len(coded.dictionary)).to_numpy()  # predictions without a chain come last
    order = np.argsort(codes, kind="stable")
    found, begins = np.unique(codes[order], return_index=True)
    kept = found < len(coded.dictionary)
    if coded.dictionary.null_count:  # one value for all rows of a bulk call, none
        kept &= np.array([*(name is not None for name in coded.dictionary.to_pylist()), False])[found]
    places = {
        "chain_id": coded.dictionary.take(pa.array(found[kept])),
        "first_nk": np.minimum.reduceat(nk[order], begins)[kept],
        "last_nk": np.maximum.reduceat(nk[order], begins)[kept],
        "predictions": np.diff(begins, append=len(codes))[kept],
    }
    return pa.table(places)


def note_in_transaction(database: Database, chain_ids: Iterable[str | None]) -> None:
    """These chains, or predictions of theirs that were there, change or go."""
    noted = sorted({chain_id for chain_id in chain_ids if chain_id is not None})
    if noted:
        database.execute(_NOTE_IDS, (noted,))


def note_of_pipelines_in_transaction(database: Database, pipeline_ids: list[str]) -> None:
    """Pipelines change or go: so do their chains."""
    database.execute(_NOTE_OF_PIPELINES, (pipeline_ids,))


def refresh(database: Database, *, writes: bool = True) -> bool:
    """Bring the cached rows up to date; False where that cannot or may not be, and only the views are right.

    Called inside `reading`: what is in memory is in the tables, and the file is this process's own until the end.
    """
    if not database.rows(_ANY):
        return True
    if database.read_only or not writes:
        return False
    try:
        for chains in _pieces(database.arrow(_STALE), min(_MEMORY, database.memory_limit)):
            database.in_little_memory(_MEMORY, partial(_refresh, database, chains))
    except StoreUnavailableError:  # who reads needs no room on the disk
        return False
    return True


def refresh_at_rest(database: Database) -> None:
    """Refresh for readers to come that may not write, where that spares them something and takes no long time."""
    ((noted,),) = database.rows_undrained(_NOTED)
    if _WORTH_REFRESHING <= noted <= _PREDICTIONS_AT_REST:
        with database.undrained():
            refresh(database)


def are_many(database: Database) -> bool:
    """Whether views would compute the rows of so many predictions that `computed_scores` is worth while."""
    ((noted,),) = database.rows(_NOTED)
    return int(noted) > _PREDICTIONS_AT_REST


def computed_scores(database: Database) -> pa.Table:
    """The rows of `chain_scores` of all stale chains, for who may not write them: some chains at a time, as `refresh`
    does, so that memory does not grow with the predictions.
    """

    def of(chains: pa.Table) -> pa.Table:
        return database.select(scores_of(_SOURCE.format(ranges=_ranges_of(chains))), wanted=chains)

    stale = _pieces(database.arrow(_STALE), min(_MEMORY, database.memory_limit))
    pieces = [database.in_little_memory(_MEMORY, partial(of, chains)) for chains in stale]
    return pa.concat_tables(pieces) if pieces else database.arrow("FROM cached_chain_scores LIMIT 0")


def current_chains(database: Database) -> Iterator[pa.Table]:
    """Chains that nobody has noted as stale, some at a time, as `wrong_among` takes them."""
    return _pieces(database.arrow(_CURRENT), min(_MEMORY, database.memory_limit))


def wrong_among(database: Database, chains: pa.Table) -> list[str]:
    """Those of some chains whose cached rows are not what the definitions give, unless they have become stale."""
    source, wrong = _SOURCE.format(ranges=_ranges_of(chains)), set[str]()
    for table, rows_of in _REFRESH.items():
        keys = _KEYS[table]
        columns = database.arrow(f"FROM {table} LIMIT 0").schema
        differs = " OR ".join(_differs(field) for field in columns if field.name not in keys)
        same = " AND ".join(f"c.{key} IS NOT DISTINCT FROM d.{key}" for key in keys)
        sql = _DIFFERENT.format(table=table, rows=rows_of(source), keys=same, differs=differs)
        wrong.update(database.select(sql, wanted=chains).columns[0].to_pylist())
    return sorted(wrong)


def _differs(column: pa.Field) -> str:
    ours, computed = f"c.{column.name}", f"d.{column.name}"
    if column.name in ("first_nk", "last_nk", "predictions"):  # what was noted may be more than there is now
        return {"first_nk": f"{ours} > {computed}", "last_nk": f"{ours} < {computed}"}.get(column.name, "false")
    if not pa.types.is_floating(column.type):
        return f"{ours} IS DISTINCT FROM {computed}"
    near = f"abs({ours} - {computed}) <= {_ROUNDING} * greatest(abs({ours}), abs({computed}))"
    return f"({ours} IS DISTINCT FROM {computed} AND NOT coalesce({near}, false))"


def ranges_of(database: Database, chain_ids: list[str]) -> str:
    """SQL for the few ranges of `nk` in which all predictions of these chains are, stale or not: found with it, they
    are found without reading all others.
    """
    if not chain_ids:
        return "false"
    one = len(chain_ids) == 1
    these, params = ("chain_id = ?1", chain_ids) if one else (ONE_OF.format("chain_id", 1), [chain_ids])
    found = database.rows(_PLACES.format(these=these), params)
    placed = np.array(sorted(place for place in found if place[0] is not None), np.uint64).reshape(-1, 2)
    return _ranges(placed[:, 0], placed[:, 1])


def note_wrong_in_transaction(database: Database, chain_ids: list[str]) -> None:
    """Chains are stale, wherever their predictions are."""
    database.insert(_NOTE_WHERE, wanted=pa.table({"chain_id": pa.array(chain_ids, pa.string())}))


def forget_all_in_transaction(database: Database) -> None:
    """No chain has cached rows, whatever can be read of those there are."""
    for table in CACHED_TABLES:
        database.execute(f"DELETE FROM {table}")
    database.execute(NOTE_ALL)


def _refresh(database: Database, chains: pa.Table) -> None:
    source = _SOURCE.format(ranges=_ranges_of(chains))
    statements = [_FORGET.format(table="stale_chains")]
    for table, rows_of in _REFRESH.items():
        statements += [_FORGET.format(table=table), f"INSERT INTO {table} BY NAME {rows_of(source)}"]
    with database.transaction():
        database.insert("; ".join(statements), wanted=chains)  # which is given to DuckDB once, for half a millisecond


def _pieces(stale: pa.Table, memory: int) -> Iterator[pa.Table]:
    """Chains with about as many predictions as one commit takes in so much memory, in their order."""
    at_once = _PREDICTIONS_AT_ONCE * memory // _MEMORY
    ends = np.cumsum(stale["predictions"].to_numpy().astype(np.int64)) // at_once
    cuts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), stale.num_rows]
    return (stale.slice(first, last - first) for first, last in pairwise(cuts) if last > first)


def _ranges_of(chains: pa.Table) -> str:
    """SQL for the few ranges of `nk` that hold the predictions of all chains, which come by `first_nk`."""
    placed = chains.filter(chains["first_nk"].is_valid())
    return _ranges(placed["first_nk"].to_numpy(), placed["last_nk"].to_numpy())


def _ranges(first: NumberArray, last: NumberArray) -> str:
    """SQL for the few closest ranges of `nk` that hold all these places, which come by their begin."""
    if not len(first):
        return "false"
    last = np.maximum.accumulate(last)
    behind = np.flatnonzero(
        first[1:] > last[:-1]
    )  # places with nothing between one chain's end and the next one's begin
    widest = np.sort(behind[np.argsort(first[behind + 1] - last[behind])[-(_RANGES - 1) :]])
    begins, ends = first[np.r_[0, widest + 1]], last[np.r_[widest, len(last) - 1]]
    return " OR ".join(f"nk BETWEEN {low} AND {high}" for low, high in zip(begins, ends, strict=True))
