"""What is computed from other rows and kept: computed again, and compared.

Scores and summaries of chains follow from predictions; the links of a chain to its artifacts follow from the chain.
Compiled chains are not compiled again, which would load models: they carry a digest, and what does not agree with it
is made anew by the next replay. A repair computes all of it again, so nothing of it is ever the only copy.
"""

from __future__ import annotations

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.maintenance.findings import Finding
from n4a_fast.maintenance.verify_rows import PieceCheck
from n4a_fast.replay.serve.persisted import wrong_compiled
from n4a_fast.tables.chains import artifacts_of
from n4a_fast.tables.stale_chains import wrong_among

LINKS, SCORES, COMPILED = "wrong link", "wrong score", "wrong compiled chain"
_CURE = "verify(repair=True) derives it from {} again"
_CHAINS_AT_ONCE = 2**15
# Chains of some rows that may have wrong links, and the links of each. What a chain names are the texts that are values
# in its references, and the ids of its steps; where steps have lists of ids, or there are escapes, spaces or metadata,
# Python decides
_SUSPECTS = r"""WITH texts AS (SELECT chain_id, fold_artifacts || shared_artifacts AS ids,
        CASE WHEN NOT contains(steps, 'artifact_id') THEN '[]' WHEN json_valid(steps) THEN steps END AS steps
    FROM chains WHERE rowid >= {first} AND rowid < {last}),
unclear AS (SELECT chain_id FROM texts WHERE (contains(steps, 'artifact_ids')
    OR regexp_matches(ids, '^[^{{]|[^}}]$|[\\\s]|"_')) IS DISTINCT FROM false),
named AS (SELECT chain_id, unnest(regexp_extract_all(ids, '"([^"]*)"[,}}\]]', 1)
        || json_extract_string(steps, '$[*].artifact_id')) AS artifact_id FROM texts),
both_ways AS (
    SELECT DISTINCT *, 1 AS n FROM named WHERE artifact_id IS NOT NULL
    UNION ALL SELECT chain_id, artifact_id, -1 FROM chain_artifacts SEMI JOIN texts USING (chain_id)),
suspects AS (FROM unclear UNION SELECT chain_id FROM both_ways GROUP BY chain_id, artifact_id HAVING sum(n) <> 0),
noted AS (SELECT chain_id, list(coalesce(artifact_id, '')) AS linked, list(artifact_id) FILTER (released) AS released
    FROM chain_artifacts SEMI JOIN suspects USING (chain_id) GROUP BY chain_id)
SELECT chain_id, steps, fold_artifacts, shared_artifacts, coalesce(linked, []), coalesce(released, [])
FROM chains SEMI JOIN suspects USING (chain_id) LEFT JOIN noted USING (chain_id)"""


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


def wrong_links(database: Database, first: int, last: int) -> list[Finding]:
    """Those of some chains whose rows of used artifacts are not those that the chain itself names."""
    message = "its links to artifacts are not what the chain names"
    return [
        Finding(LINKS, f"chains {chain}", database.path, message, _CURE.format("the chain"))
        for chain in links_to_mend(database, first, last)
    ]


def links_to_mend(database: Database, first: int, last: int) -> dict[str, dict[str, bool]]:
    """Of some chains, by `rowid`: the artifacts that each names, and whether it has released each, where others are
    noted.

    Format 1 forgot the links that were released: in a file that began as such, one that is missing is no fault.
    """
    forgot, wrong = database.identity.began_as == 1, {}
    suspects = database.rows(_SUSPECTS.format(first=first, last=last))
    for chain, steps, folds, shared, linked, released in suspects:
        try:
            named = artifacts_of({"steps": steps, "fold_artifacts": folds, "shared_artifacts": shared})
        except (ValueError, TypeError, AttributeError):
            continue  # damaged JSON has a finding of its own
        if forgot:
            named.intersection_update(linked)
        if sorted(named) != sorted(linked):
            wrong[chain] = {artifact: artifact in released for artifact in sorted(named)}
    return wrong


OF_LINKS = PieceCheck("links of chains", "chains", _CHAINS_AT_ONCE, wrong_links)
