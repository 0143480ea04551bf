"""n4a_fast: the storage engine for nirs4all sweeps, on one DuckDB file and a folder of artifacts."""

from n4a_fast.bundles.inspection import inspect_bundle
from n4a_fast.chain_builder import ChainBuilder
from n4a_fast.integrations.nirs4all import install, uninstall
from n4a_fast.library import PipelineLibrary
from n4a_fast.replay import register_linear_operator, replay_chain, replay_chains
from n4a_fast.store import WorkspaceStore
from n4a_fast.values.chain_input import ChainInput
from n4a_fast.version import __version__

__all__ = [
    "ChainBuilder",
    "ChainInput",
    "PipelineLibrary",
    "WorkspaceStore",
    "__version__",
    "inspect_bundle",
    "install",
    "register_linear_operator",
    "replay_chain",
    "replay_chains",
    "uninstall",
]
