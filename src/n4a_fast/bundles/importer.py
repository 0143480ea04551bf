"""A bundle becomes a chain of this store, with a run and a pipeline of its own.

Promises that the same bundle imported again gives the same chain and writes nothing; that a bundle
which comes back to the store it came from gives the chain that is there; that one whose operators are
other bytes is a chain of its own, whatever ids it states; and that nothing is written unless all of
it was read and verified. Operators are saved as bytes, not loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from n4a_fast.bundles.n4a import operators_of
from n4a_fast.bundles.reader import ROWS, Bundle, read_bundle
from n4a_fast.errors import StoreError
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.tables.chains import Chains, artifacts_used, with_artifacts
from n4a_fast.tables.pipelines import Pipelines
from n4a_fast.tables.runs import Runs
from n4a_fast.values import checks, jsontext
from n4a_fast.values.chain_input import ChainInput, read_input
from n4a_fast.values.ids import content_id


class Parts(Protocol):
    """The parts of a workspace that an import writes to."""

    runs: Runs
    pipelines: Pipelines
    chains: Chains
    artifacts: Artifacts

    def end_pipeline(self) -> None: ...


def import_chain(parts: Parts, path: Path, max_bytes: int | None) -> str:
    """Id of the bundle's chain, durably saved unless it is here already."""
    bundle = read_bundle(path, max_bytes)
    stated = checks.text(bundle.manifest.get("chain_id") or "", "chain_id")
    told = [stated, _digested(bundle), bundle.input.as_json()]
    derived = content_id(str(jsontext.encode(told, "chain")).encode())
    known = {chain_id: found for chain_id in (stated, derived) if (found := parts.chains.find(chain_id)) is not None}
    for chain_id, found in known.items():
        if _is_here(found, parts.artifacts, bundle):
            return chain_id
    free = derived if stated in known or not stated else stated
    _save(parts, bundle, free)
    parts.end_pipeline()
    return free


def _save(parts: Parts, bundle: Bundle, chain_id: str) -> None:
    saved = _save_operators(parts.artifacts, bundle)
    pipeline_id = _begin(parts.runs, parts.pipelines, bundle)
    told = bundle.manifest
    header: dict[str, Any] = {
        "model_class": told.get("model_class") or _class_of_model(bundle),
        "preprocessings": told.get("preprocessings") or told.get("preprocessing_chain") or "",
        "fold_strategy": told.get("fold_strategy") or "",
    }
    parts.chains.save(
        pipeline_id, **with_artifacts(bundle.rows, saved), chain_id=chain_id, input=bundle.input, **header
    )


def _is_here(known: Mapping[str, Any], artifacts: Artifacts, bundle: Bundle) -> bool:
    """Whether the stored chain is the bundle's, by the bytes of its operators: ids are only what a file says."""
    if _contradicts(read_input(known["input"]), bundle.input):
        return False
    try:
        stored = {name: artifacts.content(name)[0] for name in artifacts_used(known)}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in stored.items()}
        if _same(with_artifacts(known, digests), _digested(bundle)):
            return True
        return _same(known, bundle.told or {}) and operators_of(known, artifacts) == bundle.operators
    except StoreError:  # an operator that is gone, damaged or not to be loaded: the bundle brings its own
        return False


def _contradicts(known: ChainInput, told: ChainInput) -> bool:
    """Whether the bundle says something else of its training data; an export says more than the store was told."""
    stored, stated = known.as_json(), told.as_json()
    return any(stored[name] != stated[name] for name in {*stored} & {*stated} - {"prediction_range"})


def _digested(bundle: Bundle) -> dict[str, Any]:
    """Its chain with the hash of each operator in the operator's place."""
    return with_artifacts(bundle.rows, {name: bundle.digest_of(name) for name in bundle.operators})


def _same(known: Mapping[str, Any], rows: Mapping[str, Any]) -> bool:
    """Whether both say the same; nirs4all writes the refit alone, so a part of the stored folds will do."""
    exact = all(
        known[name] == rows.get(name) for name in ROWS if name not in ("fold_artifacts", "branch_path", "source_index")
    )
    return exact and rows["fold_artifacts"].items() <= known["fold_artifacts"].items()


def _save_operators(artifacts: Artifacts, bundle: Bundle) -> dict[str, str]:
    """Artifact id of each member."""
    models = set(bundle.rows["fold_artifacts"].values())
    return {
        name: artifacts.save_bytes(
            data,
            bundle.classes[name],
            "model" if name in models else "transformer",
            bundle.formats[name],
            origin="imported",
        )
        for name, data in bundle.operators.items()
    }


def _begin(runs: Runs, pipelines: Pipelines, bundle: Bundle) -> str:
    """The pipeline that the chain belongs to, in a run that tells where it came from; both are completed."""
    name = bundle.path.name
    run_id = runs.begin(f"import of {name}", {"imported_from": name, "manifest": dict(bundle.manifest)}, [])
    pipeline_id = pipelines.begin(run_id, bundle.path.stem, bundle.pipeline, [], "", None)
    pipelines.complete(pipeline_id, None, None, None, None)
    runs.complete(run_id, {})
    return pipeline_id


def _class_of_model(bundle: Bundle) -> str:
    model = next(step for step in bundle.rows["steps"] if step["step_idx"] == bundle.rows["model_step_idx"])
    return str(model.get("operator_class") or "")
