"""A `.n4a` file as one chain and its operators, whoever wrote it.

Owns the shapes that there are: this package's, which names the artifact of each member; that of
nirs4all's store, whose chain refers to artifacts by ids; and that of nirs4all's results, which has
the pipeline's configuration alone. All become the same rows, which refer to members by name.
Promises that hashes were verified and that the chain is one that replay can run. It unpickles
nothing. Saving what was read is for `importer`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.pickles import Budget, Contents, contents_of
from n4a_fast.bundles.archive import limit_of, members_of
from n4a_fast.errors import BundleError, InvalidInputError, ReplayError
from n4a_fast.replay.plan.load import load_chain
from n4a_fast.tables.chains import with_artifacts
from n4a_fast.values import checks
from n4a_fast.values.chain_input import ChainInput, read_input

FOLDER = "artifacts/"
FORMATS = {".joblib": "joblib", ".pkl": "pickle"}
ROWS = ("steps", "model_step_idx", "fold_artifacts", "shared_artifacts", "branch_path", "source_index")
_SUPPORTED = (1, 0)
_PLACE = re.compile(r"step_(?P<step>\d+)(?:_fold(?P<fold>\d+|final|avg|w_avg)|_(?P<refit>final))?(?:_.*)?")
# What a bundle of nirs4all may hold beyond a chain of operators, and what it is called.
_BEYOND = {
    "partitioner_routing": "sends samples to branches by their metadata",
    "relation_replay_manifest": "joins several raw sources",
    "dagml_native_export_shape": "is one of nirs4all's dag-ml archives",
    "dagml_source_training_capture_ref": "is one of nirs4all's dag-ml archives",
}
_TEXTS = ("chain_id", "model_class", "preprocessings", "preprocessing_chain", "fold_strategy")
_NOT_PLAIN = ("FoldPreprocessedModel", "_StepArtifactValue")


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle: its header, its chain as rows that refer to members by name, and the members."""

    path: Path
    manifest: Mapping[str, Any]
    pipeline: Any
    told: Mapping[str, Any] | None  # the chain as the writer's store had it
    rows: Mapping[str, Any]  # those of ROWS
    input: ChainInput
    operators: Mapping[str, bytes]
    classes: Mapping[str, str]  # of the pickled objects, by member
    formats: Mapping[str, str]
    digest_of: Callable[[str], str]  # sha256 of a member


def read_bundle(path: Path, max_bytes: int | None = None) -> Bundle:
    """The bundle at `path`; BundleError when it is damaged, unsafe, or holds more than a chain."""
    members = members_of(path, max_bytes)
    manifest = header_of(path, members, digest_of := digests_of(members))
    operators = {name: data for name, data in members.items() if name.startswith(FOLDER)}
    if not operators:
        raise BundleError(path, "it holds no operators (members under artifacts/)")
    told, pipeline = (
        _json(path, members, name) if name in members else None for name in ("chain.json", "pipeline.json")
    )
    _check_weights(path, members)
    own = _own_entries(manifest)
    formats = {name: _format(path, name, own.get(name, {})) for name in operators}
    described = told is not None and not any(entry.get("composed") for entry in own.values())
    budget = budget_of(path, members, max_bytes)
    classes = {name: contents_in(path, name, data, budget).class_name for name, data in operators.items()}
    try:
        rows = (
            _rows_of_chain(path, own, told or {}, classes)
            if described
            else _rows_of_pipeline(path, manifest, pipeline or {}, classes, bool(own))
        )
        _check_chain(path, rows, classes)
        known = read_input(manifest.get("input"))
    except BundleError:
        raise
    except (ReplayError, ValueError, TypeError, LookupError, AttributeError) as error:  # JSON of any other form
        raise BundleError(path, f"its chain cannot be replayed: {error}") from error
    return Bundle(path, manifest, pipeline, told, rows, known, operators, classes, formats, digest_of)


def digests_of(members: Mapping[str, bytes]) -> Callable[[str], str]:
    """Tells the sha256 of a member, for which it is read once."""
    return cache(lambda name: hashlib.sha256(members[name]).hexdigest())


def header_of(path: Path, members: Mapping[str, bytes], digest_of: Callable[[str], str]) -> dict[str, Any]:
    """The manifest, once it agrees with the members."""
    if "manifest.json" not in members:
        raise BundleError(path, "it has no manifest.json")
    manifest: dict[str, Any] = _json(path, members, "manifest.json")
    version = str(manifest.get("bundle_format_version") or "1.0")
    numbers = tuple(int(part) if part.isdecimal() and len(part) < 10 else -1 for part in version.split("."))
    if -1 in numbers or numbers > _SUPPORTED:
        raise BundleError(path, f"its format is {version}, this version reads up to 1.0; install a newer n4a_fast")
    unread = next((name for name in _TEXTS if not isinstance(manifest.get(name) or "", str)), None)
    if unread:
        raise BundleError(path, f"its {unread} is no text")
    beyond = next((word for key, word in _BEYOND.items() if manifest.get(key)), None)
    if beyond:
        raise BundleError(path, f"it {beyond}, which no chain can hold; load it with nirs4all")
    hashes = manifest.get("artifact_integrity")
    if hashes is not None:
        _check_hashes(path, members, hashes, digest_of)
    return manifest


def _check_hashes(path: Path, members: Mapping[str, bytes], hashes: Any, digest_of: Callable[[str], str]) -> None:
    if not isinstance(hashes, dict):
        raise BundleError(path, "its artifact_integrity is no table of hashes")
    missing, extra = set(hashes) - set(members), {name for name in members if name.startswith(FOLDER)} - set(hashes)
    for names, told in ((missing, "it lacks"), (extra, "its manifest does not name")):
        if names:
            raise BundleError(path, f"{told} {', '.join(sorted(names))}; get the bundle again")
    for name, expected in hashes.items():
        if digest_of(name) != str(expected).removeprefix("sha256:"):
            raise BundleError(
                path, f"the content of {name} does not have the hash that its manifest states; get the bundle again"
            )


def _json(path: Path, members: Mapping[str, bytes], name: str) -> Any:
    try:
        found = json.loads(members[name])
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate is JSON, and nothing that can be stored
    except (ValueError, RecursionError) as error:
        raise BundleError(path, f"its {name} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise BundleError(path, f"its {name} is no JSON object")
    return found


def _own_entries(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What this package's manifest says of each operator: its step, its artifact if it had one, its format."""
    found = manifest.get("artifacts")
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}


def _format(path: Path, name: str, told: Mapping[str, Any]) -> str:
    suffix = PurePosixPath(name).suffix
    if suffix not in FORMATS:
        raise BundleError(
            path, f"its operator {name} is stored as {suffix or 'an unknown format'}; joblib and pickle files are read"
        )
    stated = told.get("format")
    return stated if isinstance(stated, str) and stated in codec.EXTENSIONS else FORMATS[suffix]


def _check_weights(path: Path, members: Mapping[str, bytes]) -> None:
    weights = _json(path, members, "fold_weights.json") if "fold_weights.json" in members else {}
    if any(weight != next(iter(weights.values())) for weight in weights.values()):
        raise BundleError(
            path, f"it weighs its folds {weights}, a stored chain weighs them alike; load it with nirs4all"
        )


def _rows_of_chain(
    path: Path, own: Mapping[str, dict[str, Any]], told: Mapping[str, Any], operators: Mapping[str, str]
) -> dict[str, Any]:
    for name, kind in (("steps", list), ("model_step_idx", int), ("fold_artifacts", dict), ("shared_artifacts", dict)):
        if not isinstance(told.get(name), kind):
            raise BundleError(path, f"its chain.json has no {name}")
    if not all(isinstance(step, dict) and isinstance(step.get("step_idx"), int) for step in told["steps"]):
        raise BundleError(path, "its chain.json has steps without a step_idx")
    rows = {name: told.get(name) for name in ROWS}
    if own:
        names = {str(entry.get("artifact_id")): name for name, entry in own.items()}
        made = {str(entry.get("step")): [name] for name, entry in own.items() if entry.get("artifact_id") is None}
        rows["shared_artifacts"] = {**told["shared_artifacts"], **made}
    else:
        names = dict(_by_place(told, operators) if any(map(_placed, operators)) else _by_class(path, told, operators))
    return with_artifacts(rows, names)


def _placed(name: str) -> re.Match[str] | None:
    return _PLACE.fullmatch(PurePosixPath(name).stem)


def _by_place(told: Mapping[str, Any], operators: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Artifact id and member, where members are named by step and fold, as nirs4all's store writes since 1.4."""
    names = {PurePosixPath(name).stem: name for name in operators}
    for step, value in told["shared_artifacts"].items():
        for turn, artifact_id in enumerate([value] if isinstance(value, str) else value or ()):
            yield artifact_id, names.get(f"step_{step}_sub{turn}", artifact_id)
    for fold, artifact_id in told["fold_artifacts"].items():
        yield (
            artifact_id,
            names.get(f"step_{told['model_step_idx']}_fold{str(fold).removeprefix('fold_')}", artifact_id),
        )


def _by_class(path: Path, told: Mapping[str, Any], operators: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Artifact id and member for nirs4all 0.7, whose store names files by their content: told by the classes inside
    them.

    Folds are numbered in the order of their files' names, since nothing says which is which.
    """
    files: dict[str, list[str]] = {}
    for name in sorted(operators):
        files.setdefault(_short(operators[name]), []).append(name)
    wanted: list[tuple[str, list[str]]] = []
    for step in told["steps"]:
        classes = [word.strip().rpartition(".")[2] for word in str(step.get("operator_class")).split(",")]
        ids = told["shared_artifacts"].get(str(step["step_idx"])) or []
        wanted += (
            [(kind, [each]) for kind, each in zip(classes, ids, strict=False)]
            if len(classes) == len(ids)
            else [(classes[0], list(ids))]
        )
        if step["step_idx"] == told["model_step_idx"]:
            wanted.append((classes[0], list(dict.fromkeys(told["fold_artifacts"].values()))))
    uses = Counter(kind for kind, ids in wanted if ids)
    for kind, ids in wanted:
        found = files.get(kind, [])
        is_model = set(ids) <= set(told["fold_artifacts"].values())
        if ids and (uses[kind] > 1 or len(found) != len(ids) or (len(ids) > 1 and not is_model)):
            told_nothing = f"nothing in it says which of its {len(found)} {kind} files belongs to which step"
            raise BundleError(
                path, f"{told_nothing}; import it from a newer nirs4all's export, or migrate its workspace"
            )
        yield from zip(ids, found, strict=False)


def budget_of(path: Path, members: Mapping[str, bytes], max_bytes: int | None) -> Budget:
    """What the operators of a bundle may take beside its members, so that all take twice the limit at most: what is
    unpacked lies there twice for a moment.
    """
    return Budget(limit_of(path, max_bytes) - sum(map(len, members.values())) // 2)


def contents_in(path: Path, name: str, data: bytes, budget: Budget) -> Contents:
    """What is in an operator; BundleError for one that cannot be read within the budget."""
    try:
        return contents_of(data, budget)
    except InvalidInputError as error:
        raise BundleError(
            path, f"its operator {name} cannot be read: {error}; a larger max_bytes lets it take more"
        ) from error


def _short(class_name: str) -> str:
    return class_name.rpartition(".")[2]


def _rows_of_pipeline(
    path: Path, manifest: Mapping[str, Any], pipeline: Mapping[str, Any], operators: Mapping[str, str], own: bool
) -> dict[str, Any]:
    """Rows for a bundle without a chain: as in nirs4all's loader, the steps that have operators run, in their order.

    That loader undoes a target step in the order of its operators, so this package writes them backwards.
    """
    model = manifest.get("model_step_index") or pipeline.get("model_step_index")
    if not isinstance(model, int):
        raise BundleError(path, "it does not say which step is its model")
    steps: dict[int, list[str]] = {}
    folds: dict[str, str] = {}
    for name in operators:
        place = _placed(name)
        if place is None:
            raise BundleError(path, f"its operator {name} is not named by its step")
        if int(place["step"]) == model:
            folds[f"fold_{place['fold'] or 'final'}"] = name
        else:
            steps.setdefault(int(place["step"]), []).append(name)
    listed = pipeline.get("steps") or []
    if not isinstance(listed, list):
        raise BundleError(path, "its pipeline.json has no list of steps")
    for index, names in steps.items():
        if own and index <= len(listed) and "y_processing" in listed[index - 1]:
            names.reverse()
    rows = [
        _step(index, listed[index - 1] if index <= len(listed) else None, names, operators)
        for index, names in sorted(steps.items())
    ]
    rows.append(_step(model, listed[model - 1] if model <= len(listed) else None, list(folds.values()), operators))
    shared = {str(index): names for index, names in steps.items()}
    return {
        "steps": rows,
        "model_step_idx": model,
        "fold_artifacts": folds,
        "shared_artifacts": shared,
        "branch_path": None,
        "source_index": None,
    }


def _step(index: int, written: Any, names: Sequence[str], operators: Mapping[str, str]) -> dict[str, Any]:
    """A chain's step from one of a pipeline; its words (`y_processing`, ...) tell replay what it is."""
    classes = dict.fromkeys(_short(operators[name]) for name in names)
    params = {} if not isinstance(written, dict) or set(written) & {"step", "class"} else written
    return {
        "step_idx": index,
        "operator_class": ", ".join(classes),
        "params": params,
        "artifact_ids": list(names),
        "stateless": False,
    }


def _check_chain(path: Path, rows: Mapping[str, Any], operators: Mapping[str, str]) -> None:
    """Raises unless replay would take the chain, which is asked with stand-ins for the operators."""
    for name, kind in operators.items():
        if _short(kind) in _NOT_PLAIN:
            raise BundleError(
                path, f"its operator {name} is a {_short(kind)}, which only nirs4all can run; load it with nirs4all"
            )

    def stand_in(name: str) -> Any:
        if name not in operators:
            raise BundleError(path, f"its chain uses the operator {name}, which it does not hold")
        return SimpleNamespace(transform=None, inverse_transform=None, predict=None)

    def refused(name: str) -> Any:
        raise ImportError("a bundle must hold its operators; classes that it merely names are not imported")

    load_chain({"chain_id": path.name, **rows}, stand_in, resolve=refused)
    for name, number in {"model_step_idx": rows["model_step_idx"], "source_index": rows["source_index"] or 0}.items():
        checks.integer(number, name)
    for name in rows["fold_artifacts"].values():
        stand_in(name)
