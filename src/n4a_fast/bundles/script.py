"""A chain as one Python file, `model.n4a.py`, that needs neither a store nor this package.

A chain that compiles to one linear map becomes weights: numpy alone runs it, and nothing is unpickled.
Any other carries its operators as pickles and needs joblib and what these import. Either says in its
first lines which it is. The same chain gives the same text.
"""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.bundles import scripts
from n4a_fast.bundles.line import Line, bytes_of, line_of_chain
from n4a_fast.bundles.scripts import weights
from n4a_fast.durable.publish import write_text
from n4a_fast.replay.fused.compile import compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain
from n4a_fast.replay.fused.linear_operators import version_of
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plain.inputs import is_counted
from n4a_fast.replay.plan.recreate import keeps_width
from n4a_fast.replay.plan.tags import width_of
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.values.chain_input import ChainInput
from n4a_fast.values.texttable import plain_lines
from n4a_fast.version import __version__

_HEAD = '''#!/usr/bin/env python3
"""Predictions of {model} from spectra.

    python {name} spectra.csv                     prints them
    python {name} spectra.csv predictions.csv     writes them; --header or --no-header says what the first row is

{contents}
{width}{known}Or import this file and call predict(X), samples in rows, or predict_from_file(path).

Chain {chain_id}{preprocessings}, saved {created}, exported by n4a_fast {version}.
"""

from __future__ import annotations

{imports}
'''
_OF_WEIGHTS = (
    "This file holds the weights of a linear model, made from {folds}. It needs numpy alone; nothing is unpickled."
)
_OF_PICKLES = "This file holds pickled operators: run it only if you trust where it came from. It needs {needs}."
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_LINE = 120


def export_script(chain: Mapping[str, Any], artifacts: Artifacts, target: Path) -> Path:
    """Write the chain as a script."""
    line = line_of_chain(chain, artifacts)
    compiled = _compiled(line)
    if compiled is not None:
        contents, constants, body = _OF_WEIGHTS.format(folds=_folds(line)), _weights(compiled), "weights"
    else:
        constants, body = _operators(line, artifacts), "pickled"
        contents = _OF_PICKLES.format(needs=constants["NEEDS"])
    known = line.plan.inputs[0]
    columns = [] if known.columns and is_counted(known.columns) else list(known.columns)
    constants = {**constants, "COLUMNS": columns, "WAVELENGTHS": list(known.wavelengths)}
    text = _head(chain, target.name, contents, constants, known) + "".join(
        f"{name} = {_literal(value)}\n" for name, value in constants.items()
    )
    return write_text(target, text + _body(body) + _body("table"))


def _head(chain: Mapping[str, Any], name: str, contents: str, constants: Mapping[str, Any], known: ChainInput) -> str:
    modules = (
        ("argparse", "base64", "csv", "gzip", "sys")
        if "WEIGHTS" in constants
        else ("argparse", "base64", "csv", "functools", "gzip", "io", "sys", "zlib")
    )
    width = constants["N_FEATURES"]
    told = {
        "model": str(chain["model_class"]).rpartition(".")[2] or "a model",
        "name": name,
        "contents": contents,
        "chain_id": chain["chain_id"],
        "width": f"A table has {width} values a row. " if width else "",
        "known": "".join(f"Trained on {fact}. " for fact in str(known).splitlines()[1:]),
        "preprocessings": f" ({chain['preprocessings']})" if chain["preprocessings"] else "",
        "created": f"{chain['created_at']:%Y-%m-%d}",
        "version": __version__,
        "imports": "\n".join(
            [*(f"import {module}" for module in modules), "from typing import Any", "", "import numpy as np"]
        ),
    }
    return _HEAD.format_map({key: _quiet(value) if isinstance(value, str) else value for key, value in told.items()})


def _quiet(text: str) -> str:
    """`text` for a docstring: nothing in it can end the docstring, escape, or look like what it is not."""
    return plain_lines(text).replace("\\", "/").replace('"', "'")


def _compiled(line: Line) -> CompiledChain | None:
    """The whole chain as one linear map whose values are the predictions, or None."""
    width, models = _width(line), {part.fold: part.operator for part in line.predicting}
    if not width or any(part.composed for part in line.parts):
        return None
    plan = replace(line.plan, model=replace(line.plan.model, models=MappingProxyType(models)))
    found = compile_chain(
        plan, np.full(len(models), 1.0 / len(models)), _likely_spectra(line, width), None, Bench(_never)
    )
    if not isinstance(found, CompiledChain) or found.start != 0 or found.link is not None:
        return None
    return found if found.statistic is None or found.statistic.kind in weights.CORRECTIONS else None


def _never(artifact_id: str) -> Any:
    raise AssertionError(f"{artifact_id} is loaded already")


def _width(line: Line) -> int:
    """Columns that the chain takes: what the first operator that says so takes, if those before it keep the width; else
    0.
    """
    parts = [*line.transforms, *line.predicting[:1]]
    place = next((turn for turn, part in enumerate(parts) if width_of(part.operator)), None)
    if place is None:
        return 0
    width = width_of(parts[place].operator)

    def before(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        for part in parts[:place]:
            rows = np.asarray(part.operator.transform(rows.copy()))
        return rows

    return width if place == 0 or keeps_width(before, width) else 0


def _likely_spectra(line: Line, width: int) -> NDArray[np.float64]:
    """Made-up rows to check the weights on, in pairs on both sides of the mean of the training data where the first
    operator knows it, else of zero: their mean becomes the centre of the map, and far from the spectra it costs digits.
    """
    known = _known_mean((line.transforms or line.predicting)[0].operator, width)
    waves = np.sin(np.arange(1.0, 13.0)[:, None] * np.linspace(0.2, 3.0, width)[None, :])
    size = np.ones(width) if known is None else np.abs(known) + 0.01
    away = 0.1 * size * (waves + 0.5 * waves[:, ::-1] ** 2) + (1.0 if known is None else 0.0)
    return np.ascontiguousarray(np.concatenate([away, -away]) + (0.0 if known is None else known))


def _known_mean(operator: Any, width: int) -> NDArray[np.float64] | None:
    """A value for each column that lies among those that the operator was fitted on."""
    for name, value in getattr(operator, "__dict__", {}).items():
        stated = "mean" in name.lower() or name in ("center_", "data_min_")
        fits = isinstance(value, np.ndarray) and value.shape == (width,) and value.dtype.kind in "fiu"
        if stated and fits and np.isfinite(value).all():
            return np.asarray(value, dtype=np.float64)
    return None


def _weights(compiled: CompiledChain) -> dict[str, Any]:
    statistic, center = compiled.statistic, compiled.center.astype(np.float32)
    at_center = (center.astype(np.float64) - compiled.center) @ compiled.weights.T + compiled.intercept
    arrays = (
        {"functionals": None, "spectra": None}
        if statistic is None
        else {"functionals": statistic.functionals, "spectra": statistic.spectra}
    )
    return {
        "N_FEATURES": compiled.n_features,
        "N_TARGETS": len(compiled.weights),
        "STATISTIC": statistic.kind if statistic else "",
        "NUMBER": statistic.number if statistic else 0.0,
        "FUNCTIONALS": _encoded(arrays["functionals"]),
        "SPECTRA": _encoded(arrays["spectra"]),
        "CENTER": _encoded(center),
        "WEIGHTS": _encoded(compiled.weights),
        "INTERCEPT": _encoded(at_center),
    }


def _encoded(array: NDArray[Any] | None) -> str:
    return (
        ""
        if array is None
        else base64.b64encode(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    )


def _operators(line: Line, artifacts: Artifacts) -> dict[str, Any]:
    kinds = {"transform": line.transforms, "model": line.predicting, "target": line.targets}
    named = {f"{kind}_{turn}": part for kind, parts in kinds.items() for turn, part in enumerate(parts)}
    stored = {name: bytes_of(part, artifacts)[0] for name, part in named.items()}
    needs = _packages({module for data in stored.values() for module in contents_of(data).globals})
    lists = {f"{kind.upper()}S": [name for name in named if name.startswith(kind)] for kind in kinds}
    packed = {name: base64.b64encode(zlib.compress(data)).decode() for name, data in stored.items()}
    return {"N_FEATURES": _width(line), **lists, "NEEDS": needs, "OPERATORS": packed}


def _packages(names: Iterable[str]) -> str:
    """Packages that these globals come from, with the versions at hand."""
    modules = (
        {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"numpy", "joblib", "__main__"}
    )
    listed = [
        (_DISTRIBUTIONS.get(module, module), version_of(_DISTRIBUTIONS.get(module, module)))
        for module in sorted(modules)
    ]
    return ", ".join(
        ["numpy", "joblib", *(f"{name} (written with {version})" if version else name for name, version in listed)]
    )


def _folds(line: Line) -> str:
    count = len(line.predicting)
    return f"{count} folds" if count > 1 else "one fit"


def _literal(value: Any) -> str:
    """Python source of a constant, long texts in lines."""
    if isinstance(value, str) and len(value) > _LINE:
        return "(\n" + "".join(f"    {_quoted(value[at : at + _LINE])}\n" for at in range(0, len(value), _LINE)) + ")"
    if isinstance(value, dict):
        return "{\n" + "".join(f"    {key!r}: {_literal(item)},\n" for key, item in value.items()) + "}"
    return f"float({str(value)!r})" if isinstance(value, float) and not isfinite(value) else repr(value)


def _quoted(text: str) -> str:
    """A text as Python's literal of it in double quotes, where nothing in it could end that."""
    return ascii(text) if {'"', "\\"} & {*text} or not text.isprintable() else f'"{text}"'


def _body(name: str) -> str:
    """The part of a script that is the same in all."""
    text = resources.files(scripts).joinpath(f"{name}.py").read_text(encoding="utf-8")
    return text.partition(scripts.MARK)[2]
