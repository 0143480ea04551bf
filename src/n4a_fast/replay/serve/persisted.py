"""Compiled chains in the store: the tables `compiled_chains` and `compiled_arrays`.

A compiled chain is kept under the content hashes of all artifacts of its chain and the versions of
the libraries it was made with. Promises to give back only those that are still what they were made
from, thousands in one query; others are missing, and made again. Centres and reference spectra,
which many chains share, are stored once. All of it can be deleted at any time: it is derived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from n4a_fast.engine.connection import Database
from n4a_fast.replay.fused.compiled import CompiledChain, content_hash
from n4a_fast.replay.fused.linear_operators import version_of
from n4a_fast.replay.fused.links import link_from_json
from n4a_fast.replay.fused.statistics import Front, RowStatistic
from n4a_fast.schema.columns import COMPILED_ARRAYS, COMPILED_CHAINS, table_of
from n4a_fast.values.chain_input import read_input

Array: TypeAlias = NDArray[np.float64]

_SOURCES = """(SELECT u.chain_id, md5(string_agg(u.artifact_id || '=' || coalesce(a.content_hash, ''), ' ' ORDER BY
u.artifact_id)) AS sources
    FROM chain_artifacts u SEMI JOIN batch ON batch.chain_id = u.chain_id LEFT JOIN stored_artifacts a ON a.artifact_id
    = u.artifact_id
    WHERE u.released IS NOT TRUE GROUP BY u.chain_id)"""
_LOAD = f"""SELECT c.* EXCLUDE (sources) FROM compiled_chains c SEMI JOIN {_SOURCES} s ON s.chain_id = c.chain_id AND
s.sources = c.sources"""
_IN_ORDER = "FROM compiled_chains WHERE rowid >= ? AND rowid < ?"
_CHAINS_AT_ONCE = 2**12
_LOAD_ARRAYS = "SELECT a.* FROM compiled_arrays a SEMI JOIN batch ON batch.content_hash = a.content_hash"
_REPLACED = "DELETE FROM compiled_chains WHERE chain_id IN (SELECT chain_id FROM batch)"
# a chain that another process has deleted meanwhile has no sources, and gets no row
_INSERT = (
    f"INSERT INTO compiled_chains BY NAME SELECT b.* EXCLUDE (sources), s.sources FROM batch b JOIN {_SOURCES} s ON"
    " s.chain_id = b.chain_id"
)
_INSERT_ARRAYS = (
    "INSERT INTO compiled_arrays BY NAME FROM batch b WHERE NOT EXISTS (FROM compiled_arrays a WHERE a.content_hash ="
    " b.content_hash)"
)


class CompiledChains:
    """Compiled chains by chain id, read in bulk and written in bulk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[str, CompiledChain] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, compiled: CompiledChain) -> None:
        """Keep it for the next write, if it may outlive this process."""
        if compiled.made_with and not self._database.read_only:
            self._pending[compiled.chain_id] = compiled

    def load(self, chain_ids: Sequence[str]) -> dict[str, CompiledChain]:
        """The stored ones of these chains that are not stale."""
        found = self._database.select(_LOAD, batch=pa.table({"chain_id": pa.array(chain_ids, pa.string())}))
        if not found.num_rows:
            return {}
        current = {text: _is_current(text) for text in set(found["made_with"].to_pylist())}
        if not all(current.values()):
            found = found.filter(pa.array([current[text] for text in found["made_with"].to_pylist()], pa.bool_()))
        hashes = sorted({name for names in found["arrays"].to_pylist() for name in names or () if name})
        stored = self._database.select(_LOAD_ARRAYS, batch=pa.table({"content_hash": pa.array(hashes, pa.string())}))
        arrays = _arrays(stored)
        centers = {name: array[0] for name, array in arrays.items()}
        restored = (_restored(row, arrays, centers) for row in _rows(found))
        return {chain.chain_id: chain for chain in restored if chain is not None}

    def write_in_transaction(self) -> None:
        """Write what was put; `clear` after the commit."""
        rows: list[tuple[object, ...]] = []
        arrays: dict[str, Array] = {}
        for chain in self._pending.values():
            with suppress(orjson.JSONEncodeError):  # a number past 64 bits, of a stranger: each process compiles it
                rows.append(_row(chain))
                arrays |= {content_hash(array): array for array in _arrays_of(chain)}
        batch = table_of(rows, COMPILED_CHAINS)
        listed: list[tuple[object, ...]] = [(name, array.ravel(), array.shape[-1]) for name, array in arrays.items()]
        self._database.insert(_REPLACED, batch=batch)
        self._database.insert(_INSERT, batch=batch)
        self._database.insert(_INSERT_ARRAYS, batch=table_of(listed, COMPILED_ARRAYS))

    def clear(self) -> None:
        """Forget what was put: it is written, or given up."""
        self._pending = {}


def wrong_compiled(database: Database) -> Iterator[str]:
    """Stored compiled chains that do not hold together, or whose arrays are not what their addresses say."""
    arrays = {
        name: array
        for name, array in _arrays(database.arrow("FROM compiled_arrays")).items()
        if content_hash(array) == name
    }
    centers = {name: array[0] for name, array in arrays.items()}
    ((last,),) = database.rows("SELECT coalesce(max(rowid) + 1, 0) FROM compiled_chains")
    for first in range(0, int(last), _CHAINS_AT_ONCE):
        found = database.arrow(_IN_ORDER, (first, first + _CHAINS_AT_ONCE))
        yield from (row[0] for row in _rows(found) if _restored(row, arrays, centers) is None)


def _arrays(stored: pa.Table) -> dict[str, Array]:
    """Rows of `compiled_arrays` by their addresses."""
    rows = zip(
        stored["content_hash"].to_pylist(), _values(stored["array_values"]), stored["width"].to_pylist(), strict=True
    )
    return {name: values.reshape(-1, width) for name, values, width in rows if _fits(values, width)}


def _arrays_of(chain: CompiledChain) -> tuple[Array, ...]:
    return (chain.center, *(chain.statistic.arrays if chain.statistic else ()))


def _row(chain: CompiledChain) -> tuple[object, ...]:
    statistic = chain.statistic
    recipe = {
        "start": chain.start,
        "prefix": chain.prefix,
        "n_features": chain.n_features,
        "center": content_hash(chain.center),
        "error": chain.error,
        "notes": chain.notes,
        "n_sources": chain.n_sources,
        "source_index": chain.source_index,
        "link": chain.link and chain.link.as_json(),
        "inputs": [known.as_json() for known in chain.inputs],
        "digest": _digest(chain.weights.ravel(), chain.intercept),
        "statistic": statistic and _told(statistic),
    }
    names = [content_hash(array) for array in _arrays_of(chain)]
    return (
        chain.chain_id,
        None,
        chain.made_with,
        orjson.dumps(recipe).decode(),
        names,
        chain.weights.ravel(),
        chain.intercept,
    )


def _told(statistic: RowStatistic) -> list[Any]:
    """What `_statistic` makes it of again: kind, number, arrays by their addresses, the front if it has one."""
    own = (statistic.functionals, statistic.spectra)
    told: list[Any] = [statistic.kind, str(statistic.number), *(content_hash(one) for one in own if one is not None)]
    if (front := statistic.front) is not None:
        before = front.statistic and [front.statistic.kind, str(front.statistic.number)]
        told.append([before, content_hash(front.center), content_hash(front.bands)])
    return told


def _statistic(told: Sequence[Any] | None, arrays: Mapping[str, Array]) -> RowStatistic | None:
    if not told:
        return None
    kind, number, *names = told
    front = None
    if names and isinstance(names[-1], list):
        before, center, bands = names.pop()
        front = Front(before and RowStatistic(before[0], float(before[1])), arrays[center], arrays[bands])
    functionals, spectra = [*(arrays[name] for name in names), None, None][:2]
    return RowStatistic(kind, float(number), functionals, spectra, front)


def _digest(weights: Array, intercept: Array) -> str:
    return f"{content_hash(weights)} {content_hash(intercept)}"


def _rows(found: pa.Table) -> Iterator[tuple[str, str, str, Array, Array]]:
    names = ("chain_id", "made_with", "recipe")
    return zip(
        *(found[name].to_pylist() for name in names),
        _values(found["weights"]),
        _values(found["intercept"]),
        strict=True,
    )


def _restored(
    row: tuple[str, str, str, Array, Array], arrays: Mapping[str, Array], centers: Mapping[str, Array]
) -> CompiledChain | None:
    """The compiled chain of a row; None for one that does not hold together, which is made again."""
    chain_id, made_with, text, weights, intercept = row
    try:
        recipe = orjson.loads(text)
        if recipe["digest"] != _digest(weights, intercept):
            return None
        center = centers[recipe["center"]]
        chain = CompiledChain(
            chain_id,
            recipe["start"],
            tuple(recipe["prefix"]),
            recipe["n_features"],
            _statistic(recipe["statistic"], arrays),
            center,
            weights.reshape(-1, len(center)),
            intercept,
            recipe["error"],
            tuple(recipe["notes"]),
            made_with,
            recipe["n_sources"],
            recipe["source_index"],
            link=link_from_json(recipe["link"]) if recipe.get("link") else None,
            inputs=tuple(map(read_input, recipe["inputs"])),
        )
        return chain if chain.holds_together() else None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):  # written by somebody else
        return None


def _values(column: pa.ChunkedArray) -> list[Array]:
    """Lists of doubles as views of one buffer."""
    if not len(column):
        return []
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values, offsets = whole.values.to_numpy(zero_copy_only=False), whole.offsets.to_numpy()  # NULL is NaN
    return [values[start:end] for start, end in pairwise(offsets)]


def _fits(values: Array, width: Any) -> bool:
    return isinstance(width, int) and width > 0 and len(values) > 0 and len(values) % width == 0


def _is_current(made_with: str | None) -> bool:
    """Whether these libraries are installed in these versions."""
    return made_with is not None and all(
        version_of(name) == version for name, _, version in (item.partition("==") for item in made_with.split())
    )
