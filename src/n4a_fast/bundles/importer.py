"""A bundle becomes a chain of this store, with a run and a pipeline of its own.

Promises that the same bundle imported again gives the same chain and writes nothing; that a bundle
which comes back to the store it came from gives the chain that is there; and that nothing is written
unless all of it was read and verified. Operators are saved as bytes, not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from n4a_fast import checks, jsontext
from n4a_fast.artifacts.catalog import Artifacts
from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.bundles.reader import ROWS, Bundle, read_bundle
from n4a_fast.ids import content_id
from n4a_fast.records.chains import Chains, with_artifacts
from n4a_fast.records.pipelines import Pipelines
from n4a_fast.records.runs import Runs

_TEXT = ("model_class", "preprocessings", "fold_strategy")


def import_chain(runs: Runs, pipelines: Pipelines, chains: Chains, artifacts: Artifacts, path: Path, max_bytes: int | None) -> str:
    """Id of the bundle's chain, saved unless it is here already."""
    bundle = read_bundle(path, max_bytes)
    hashes = {name: xxhash.xxh3_128_hexdigest(data) for name, data in bundle.operators.items()}
    rows = with_artifacts(bundle.rows, hashes)
    stated = str(bundle.manifest.get("chain_id") or "")
    derived = content_id(jsontext.encode([stated, rows], "chain").encode())  # type: ignore[union-attr]
    for chain_id in (stated, derived):
        known = chains.find(chain_id) if chain_id else None
        if known is not None and (_same(known, rows) or (bundle.told is not None and _same(known, bundle.told))):
            return chain_id
    free = stated if stated and chains.find(stated) is None else derived
    saved = _save_operators(artifacts, bundle)
    pipeline_id = _begin(runs, pipelines, bundle)
    header: dict[str, Any] = {name: checks.text(bundle.manifest.get(name) or "", name) for name in _TEXT}
    header["preprocessings"] = header["preprocessings"] or str(bundle.manifest.get("preprocessing_chain") or "")
    header["model_class"] = header["model_class"] or _class_of_model(bundle)
    return chains.save(pipeline_id, **with_artifacts(bundle.rows, saved), chain_id=free, **header)


def _same(known: Mapping[str, Any], rows: Mapping[str, Any]) -> bool:
    """Whether the stored chain is this one; nirs4all writes the refit alone, so a part of its folds will do."""
    exact = all(known[name] == rows.get(name) for name in ROWS if name not in ("fold_artifacts", "branch_path", "source_index"))
    return exact and rows["fold_artifacts"].items() <= known["fold_artifacts"].items()


def _save_operators(artifacts: Artifacts, bundle: Bundle) -> dict[str, str]:
    """Artifact id of each member."""
    models = set(bundle.rows["fold_artifacts"].values())
    return {
        name: artifacts.save_bytes(
            data, contents_of(data).class_name, "model" if name in models else "transformer", bundle.formats[name], origin="imported"
        )
        for name, data in bundle.operators.items()
    }  # fmt: skip


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
