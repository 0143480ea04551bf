"""A chain as one `.n4a` file that nirs4all's loader reads: a ZIP of JSON and of pickled operators.

The operators are those that replay would run, re-created stateless ones included, so the file needs
nothing of the store. Those that are artifacts are written as they are stored. Order and times are
fixed: the same chain gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n4a_fast.bundles.line import Line, Part, bytes_of, line_of_chain
from n4a_fast.bundles.reader import FOLDER, ROWS
from n4a_fast.durable.publish import new_file
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.version import __version__

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a ZIP can hold


def export_n4a(chain: Mapping[str, Any], artifacts: Artifacts, target: Path) -> Path:
    """Write the chain as a bundle."""
    members = _members(chain, line_of_chain(chain, artifacts), artifacts)
    with new_file(target) as draft, zipfile.ZipFile(draft, "w") as bundle:
        for name, data in members.items():
            bundle.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return target


def _members(chain: Mapping[str, Any], line: Line, artifacts: Artifacts) -> dict[str, bytes]:
    named = _named(line)
    stored = {name: bytes_of(part, artifacts) for name, part in named.items()}
    contents = {
        "pipeline.json": _json({"steps": _steps(chain, line), "model_step_index": line.plan.model.place.step_idx}),
        "chain.json": _json({name: chain[name] for name in ROWS}),
        **{name: data for name, (data, _) in stored.items()},
    }
    integrity = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    entries = {name: _entry(part, stored[name][1]) for name, part in named.items()}
    return {
        "manifest.json": _json({**_header(chain, line), "artifacts": entries, "artifact_integrity": integrity}),
        **contents,
    }


def operators_of(chain: Mapping[str, Any], artifacts: Artifacts) -> dict[str, bytes]:
    """The operators that an export of this chain holds, by member; loaded as if they had come from outside."""
    named = _named(line_of_chain(chain, artifacts, artifacts.trust.of_strangers))
    return {name: bytes_of(part, artifacts)[0] for name, part in named.items()}


def _named(line: Line) -> dict[str, Part]:
    """Parts by member name, by step and in the order in which they run."""
    turns: Counter[int] = Counter()
    found = {}
    for part in line.parts:
        key = f"fold{part.fold}" if part.fold else f"sub{turns[part.step]}"
        turns[part.step] += 1
        found[f"{FOLDER}step_{part.step}_{key}.joblib"] = part
    return found


def _entry(part: Part, format_name: str) -> dict[str, Any]:
    return {
        "step": part.step,
        "artifact_id": part.artifact_id,
        "format": format_name,
        **({"composed": True} if part.composed else {}),
    }


def _header(chain: Mapping[str, Any], line: Line) -> dict[str, Any]:
    created = chain["created_at"].isoformat()
    return {
        "bundle_format_version": "1.0",
        "nirs4all_version": "",
        "written_by": f"n4a_fast {__version__}",
        "created_at": created,
        "exported_at": created,
        "pipeline_uid": chain["pipeline_id"],
        "source_type": "chain",
        "chain_id": chain["chain_id"],
        "model_class": chain["model_class"],
        "model_step_index": line.plan.model.place.step_idx,
        "fold_strategy": chain["fold_strategy"],
        "preprocessings": chain["preprocessings"],
        "preprocessing_chain": chain["preprocessings"],
        "has_refit": "final" in line.plan.model.models,
        "input": line.plan.inputs[0].as_json(),
    }


def _steps(chain: Mapping[str, Any], line: Line) -> list[dict[str, Any]]:
    """One entry a step, by number; its key tells nirs4all what it is."""
    classes = {step["step_idx"]: step.get("operator_class") for step in chain["steps"]}
    targets, model = {part.step for part in line.targets}, line.plan.model.place.step_idx
    words = {
        index: "model" if index == model else "y_processing" if index in targets else "step"
        for index in range(1, model + 1)
    }
    return [
        {word: classes.get(index) or (chain["model_class"] if index == model else None)}
        for index, word in words.items()
    ]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()
