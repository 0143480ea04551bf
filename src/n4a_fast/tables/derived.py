"""What is computed from chains and kept for later: it goes when its chains go."""

from __future__ import annotations

from n4a_fast.engine.connection import Database

_SWEEP = """DELETE FROM compiled_chains
WHERE chain_id NOT IN (SELECT chain_id FROM chains WHERE chain_id IN (SELECT chain_id FROM compiled_chains))"""
_SWEEP_ARRAYS = "DELETE FROM compiled_arrays WHERE content_hash NOT IN (SELECT unnest(arrays) FROM compiled_chains)"


def sweep_compiled_in_transaction(database: Database) -> None:
    """Remove compiled chains whose chain has gone."""
    if database.execute(_SWEEP):
        database.execute(_SWEEP_ARRAYS)
