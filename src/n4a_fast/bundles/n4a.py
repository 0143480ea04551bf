"""A chain as one `.n4a` file that nirs4all's loader reads: a ZIP of JSON and of joblib files.

The operators are those that replay would run, re-created stateless ones included, so the file needs
nothing of the store. Order and times are fixed: the same chain gives the same bytes. What that
format cannot say (several sources, feature augmentation, several target operators) is refused.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.catalog import Artifacts
from n4a_fast.bundles.target import new_file
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.records.chains import Chains
from n4a_fast.replay.load import load_chain
from n4a_fast.replay.plan import ReplayPlan, TransformStep
from n4a_fast.version import __version__

FORMATS = ("n4a",)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a ZIP can hold


def export_chain(chains: Chains, artifacts: Artifacts, chain_id: str, target: Path, format_name: str) -> Path:
    """Write the chain as a bundle."""
    if format_name not in FORMATS:
        raise InvalidInputError(f"format {format_name!r} is unknown; use one of {', '.join(FORMATS)}")
    chain = chains.find(chain_id)
    if chain is None:
        raise NotFoundError("chain", chain_id)
    members = _members(chain, load_chain(chain, artifacts.load))
    with new_file(target) as draft, zipfile.ZipFile(draft, "w") as bundle:
        for name, data in members.items():
            bundle.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return target


def _members(chain: dict[str, Any], plan: ReplayPlan) -> dict[str, bytes]:
    files = _operators(plan)
    told = {
        "pipeline.json": _json({"steps": _steps(chain, plan), "model_step_index": plan.model.place.step_idx}),
        "chain.json": _json({name: chain[name] for name in ("steps", "model_step_idx", "fold_artifacts", "shared_artifacts")}),
    }
    contents = {**told, **files}
    integrity = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    return {"manifest.json": _json(_manifest(chain, plan, integrity)), **contents}


def _manifest(chain: dict[str, Any], plan: ReplayPlan, integrity: dict[str, str]) -> dict[str, Any]:
    created = chain["created_at"].isoformat()
    return {
        "bundle_format_version": "1.0", "nirs4all_version": "", "written_by": f"n4a_fast {__version__}", "created_at": created,
        "exported_at": created, "pipeline_uid": chain["pipeline_id"], "source_type": "chain", "chain_id": chain["chain_id"],
        "model_class": chain["model_class"], "model_step_index": plan.model.place.step_idx, "fold_strategy": chain["fold_strategy"],
        "preprocessings": chain["preprocessings"], "preprocessing_chain": chain["preprocessings"],
        "has_refit": "final" in plan.model.models, "artifact_integrity": integrity,
    }  # fmt: skip


def _operators(plan: ReplayPlan) -> dict[str, bytes]:
    """Joblib files by member name, in the order in which they run."""
    found: dict[int, dict[str, Any]] = {}
    for step in plan.steps:
        if not isinstance(step, TransformStep) or plan.n_sources != 1 or len(step.operators) != 1:
            raise step.place.error("uses several sources or feature augmentation, which a .n4a file cannot hold; replay it from the store")
        found[step.place.step_idx] = {f"sub{turn}": operator for turn, operator in enumerate(step.operators[0])}
    for target in plan.targets:
        if len(plan.targets) > 1 or len(target.operators) > 1:
            raise target.place.error("is one of several target operators, of which a .n4a file holds one; replay it from the store")
        found[target.place.step_idx] = {"sub0": target.operators[0]}
    model = {f"fold{key}": fitted for key, fitted in plan.model.models.items()}
    found[plan.model.place.step_idx] = model
    return {f"artifacts/step_{index}_{name}.joblib": codec.dumps(each, "joblib") for index, named in sorted(found.items()) for name, each in named.items()}


def _steps(chain: dict[str, Any], plan: ReplayPlan) -> list[dict[str, Any]]:
    """One entry a step, by number; its key tells nirs4all what it is."""
    classes = {step["step_idx"]: step.get("operator_class") for step in chain["steps"]}
    targets, model = {target.place.step_idx for target in plan.targets}, plan.model.place.step_idx
    words = {index: "model" if index == model else "y_processing" if index in targets else "step" for index in range(1, model + 1)}
    return [{word: classes.get(index) or (chain["model_class"] if index == model else None)} for index, word in words.items()]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()
