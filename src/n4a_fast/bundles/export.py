"""`export_chain`: which format, which file name, and the errors before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from n4a_fast.bundles.n4a import export_n4a
from n4a_fast.bundles.script import export_script
from n4a_fast.durable.publish import with_suffix
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.replay.serve.description import with_range
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.tables.chains import Chains

FORMATS = {"n4a": export_n4a, "n4a.py": export_script}


def export_chain(
    chains: Chains, artifacts: Artifacts, arrays: ArrayReader, chain_id: str, target: Path, format_name: str
) -> Path:
    """Write the chain in one of FORMATS; a target without a suffix gets that of the format."""
    name = str(format_name).removeprefix(".")
    if name not in FORMATS:
        raise InvalidInputError(f"format {format_name!r} is unknown; use one of {', '.join(FORMATS)}")
    chain = chains.find(chain_id)
    if chain is None:
        raise NotFoundError("chain", chain_id)
    chain = {**chain, "input": with_range(chain, arrays)}
    return FORMATS[name](chain, artifacts, with_suffix(target, f".{name}"))
