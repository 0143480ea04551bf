"""What a chain was trained on: its columns, wavelengths, classes and targets, as far as anyone said.

Owns the shape of these facts and their JSON; every fact may be missing. Promises that what is kept
agrees with itself: as many wavelengths and names as columns. Comparing spectra with them is for replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from n4a_fast.errors import InvalidInputError
from n4a_fast.values import checks

_CLASSES = (str, bool, int, float)


@dataclass(frozen=True, slots=True)
class ChainInput:
    """The facts that a chain keeps about its training data; empty where nothing is known.

    `n_features` columns of X, with `wavelengths` in `wavelength_unit` and names in `columns`; `classes` in the order of
    probabilities; names of the `targets` and their `target_unit`; `prediction_range`, the smallest and the largest
    prediction of the training data.
    """

    n_features: int | None = None
    wavelengths: tuple[float, ...] = ()
    wavelength_unit: str = ""
    columns: tuple[str, ...] = ()
    classes: tuple[Any, ...] = ()
    targets: tuple[str, ...] = ()
    target_unit: str = ""
    prediction_range: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """What is known, in plain values; `read_input` takes it again."""
        stated = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in stated.items()
            if value not in (None, (), "")
        }

    def filled_from(self, other: ChainInput) -> ChainInput:
        """These facts, and those of `other` where nothing is known here."""
        return ChainInput(**{**_stated(other), **_stated(self)})

    def __str__(self) -> str:
        """One line a fact, for people."""
        lines = [f"{self.n_features} columns"] if self.n_features else []
        if self.wavelengths:
            unit = f" {self.wavelength_unit}" if self.wavelength_unit else ""
            lines.append(f"wavelengths {self.wavelengths[0]:g} to {self.wavelengths[-1]:g}{unit}")
        if self.columns:
            lines.append(f"columns {_listed(self.columns)}")
        if self.targets or self.target_unit:
            unit = f" in {self.target_unit}" if self.target_unit else ""
            lines.append(f"target {_listed(self.targets) or '?'}{unit}")
        if self.classes:
            lines.append(f"classes {_listed(self.classes)}")
        if self.prediction_range:
            lines.append("training predictions from {:.6g} to {:.6g}".format(*self.prediction_range))
        return "\n".join(lines)


def read_input(given: Any) -> ChainInput:
    """Facts that a caller or a file states; InvalidInputError names the one that cannot be."""
    if given is None or isinstance(given, ChainInput):
        return _agreeing(given or ChainInput())
    known = {field.name for field in fields(ChainInput)}
    if not isinstance(given, Mapping) or set(given) - known:
        raise InvalidInputError(f"input={given!r} must be a mapping of some of {', '.join(sorted(known))}")
    stated = {name: value for name, value in given.items() if value is not None}
    read = {
        name: checks.text(stated[name], f"input[{name!r}]")
        for name in ("wavelength_unit", "target_unit")
        if name in stated
    }
    facts: dict[str, Any] = {**read}
    if "n_features" in stated:
        facts["n_features"] = checks.integer(stated["n_features"], "input['n_features']")
    for name, item in (
        ("wavelengths", _finite),
        ("columns", checks.text),
        ("targets", checks.text),
        ("classes", _label),
    ):
        if name in stated:
            facts[name] = tuple(item(value, f"input[{name!r}]") for value in _sequence(stated[name], name))
    if "prediction_range" in stated:
        lowest, highest = _pair(stated["prediction_range"])
        facts["prediction_range"] = (lowest, highest)
    return _agreeing(ChainInput(**facts))


def _agreeing(facts: ChainInput) -> ChainInput:
    """The facts with the number of columns that follows, if they do not contradict each other."""
    counts = {name: len(values) for name in ("wavelengths", "columns") if (values := getattr(facts, name))}
    if facts.n_features is not None:
        counts["n_features"] = facts.n_features
    if len(set(counts.values())) > 1 or 0 in counts.values():
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidInputError(f"input tells different numbers of columns: {told}; give one of each column of X")
    if len(set(facts.columns)) < len(facts.columns):
        raise InvalidInputError("input['columns'] names a column twice; a column is found by its name")
    width = next(iter(counts.values()), None)
    return ChainInput(**{**_stated(facts), "n_features": width})


def _stated(facts: ChainInput) -> dict[str, Any]:
    found = {field.name: getattr(facts, field.name) for field in fields(facts)}
    return {name: value for name, value in found.items() if value not in (None, (), "")}


def _sequence(value: Any, name: str) -> Any:
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, str):
        listed = [listed] if name == "targets" else None
    if not isinstance(listed, list | tuple):
        raise InvalidInputError(f"input[{name!r}] must be a list, got {type(value).__name__}")
    return listed


def _finite(value: Any, name: str) -> float:
    found = checks.real(value, name)
    if found is None or not isfinite(found):
        raise InvalidInputError(f"{name} must be finite numbers, got {value!r}")
    return found


def _label(value: Any, name: str) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, _CLASSES):
        raise InvalidInputError(f"{name} must be texts or numbers, got {type(value).__name__}")
    return plain


def _pair(value: Any) -> tuple[float, float]:
    ends = [_finite(end, "input['prediction_range']") for end in _sequence(value, "prediction_range")]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InvalidInputError(f"input['prediction_range'] must be (smallest, largest), got {value!r}")
    return ends[0], ends[1]


def _listed(values: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"{shown}, ... ({len(values)})" if len(values) > 6 else shown
