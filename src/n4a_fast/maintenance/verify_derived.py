"""What is computed from other rows and kept: computed again, and compared.

Scores and summaries of chains follow from predictions; the links of a chain to its artifacts follow from the chain.
Compiled chains are not compiled again, which would load models: they carry a digest, and what does not agree with it
is made anew by the next replay. A repair computes all of it again, so nothing of it is ever the only copy.
"""

from __future__ import annotations

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.maintenance.findings import Finding
from n4a_fast.replay.serve.persisted import wrong_compiled
from n4a_fast.tables.chains import artifacts_of
from n4a_fast.tables.stale_chains import wrong_among

LINKS, SCORES, COMPILED = "wrong link", "wrong score", "wrong compiled chain"
_CURE = "verify(repair=True) derives it from {} again"
_CHAINS = "SELECT chain_id, steps, fold_artifacts, shared_artifacts FROM chains"
_LINKS = """SELECT chain_id, list(artifact_id), list(artifact_id) FILTER (released)
FROM chain_artifacts GROUP BY chain_id"""


def wrong_scores(database: Database, chains: pa.Table) -> list[Finding]:
    """Those of some chains whose cached scores and summaries are not what their predictions give."""
    message, cure = "its cached scores are not what its predictions give", _CURE.format("its predictions")
    return [Finding(SCORES, f"chains {chain}", database.path, message, cure) for chain in wrong_among(database, chains)]


def wrong_compilations(database: Database) -> list[Finding]:
    """Compiled chains that a replay would not use: they are damaged, or their arrays are."""
    message = "it is not what was compiled, and is not used"
    return [
        Finding(
            COMPILED, f"compiled_chains {chain}", database.path, message, _CURE.format("its chain"), is_leftover=True
        )
        for chain in wrong_compiled(database)
    ]


def wrong_links(database: Database) -> list[Finding]:
    """Chains whose rows of used artifacts are not those that the chain itself names."""
    message = "its links to artifacts are not what the chain names"
    return [
        Finding(LINKS, f"chains {chain}", database.path, message, _CURE.format("the chain"))
        for chain in links_to_mend(database)
    ]


def links_to_mend(database: Database) -> dict[str, dict[str, bool]]:
    """By chain, the artifacts that it names, and whether it has released each, where others are noted.

    Format 1 forgot the links that were released: in a file that began as such, one that is missing is no fault.
    """
    noted = {chain: (artifacts, set(released or ())) for chain, artifacts, released in database.rows(_LINKS)}
    forgot, wrong = database.identity.began_as == 1, {}
    for chain, steps, folds, shared in database.rows(_CHAINS):
        try:
            named = artifacts_of({"steps": steps, "fold_artifacts": folds, "shared_artifacts": shared})
        except (ValueError, TypeError, AttributeError):
            continue  # damaged JSON has a finding of its own
        linked, released = noted.get(chain, ([], set()))
        if forgot:
            named.intersection_update(linked)
        if sorted(named) != sorted(linked):
            wrong[chain] = {artifact: artifact in released for artifact in sorted(named)}
    return wrong
