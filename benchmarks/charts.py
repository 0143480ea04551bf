"""The two charts: every ratio beside its floor, and times as the rows grow."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "n4a"})
_COLOURS = (
    "#2f6f9f",
    "#c2571a",
    "#4a8c4a",
    "#8a5a9e",
    "#a08a1f",
    "#3a8f8f",
    "#b04a6a",
    "#666666",
    "#7a4b2a",
    "#5566bb",
)


def ratios(results: list[dict[str, Any]]) -> bytes:
    """PNG: how many times faster than its baseline each is, by capability, on a logarithmic axis; a tick where its
    floor is.
    """
    shown = [result for result in results if result["unit"] == "x"]
    shown.sort(key=lambda result: (result["capability"], result["value"]))
    figure = Figure(figsize=(9, 0.8 + 0.24 * len(shown)), layout="constrained")
    axes = figure.subplots()
    capabilities = sorted({result["capability"] for result in shown})
    for place, result in enumerate(shown):
        colour = _COLOURS[capabilities.index(result["capability"]) % len(_COLOURS)]
        axes.plot([1, result["value"]], [place, place], color=colour, linewidth=1.2, alpha=0.5)
        axes.plot(result["value"], place, "o", color=colour, markersize=5)
        axes.annotate(
            _number(result["value"]),
            (max(result["value"], 1), place),
            xytext=(6, -3),
            textcoords="offset points",
            fontsize=8,
        )
        if "at_least" in result["floor"]:
            axes.plot(max(result["floor"]["at_least"], 1e-3), place, "|", color="black", markersize=9)
    axes.axvline(1, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_yticks(
        range(len(shown)),
        [f"{result['capability']} · {result['declared']['name'].replace('_', ' ')}" for result in shown],
    )
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.set_xlabel("times as fast as its baseline in the same run; | is the floor of the gate")
    return _png(figure)


def growth(results: list[dict[str, Any]]) -> bytes | None:
    """PNG: milliseconds of each call over the predictions there, both axes logarithmic; None without curves."""
    curves = [(label, points) for result in results for label, points in result["curves"].items()]
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (label, points), colour in zip(grid, curves, _COLOURS * len(curves), strict=False):
        x, y = [point[0] for point in points], [point[1] * 1000 for point in points]
        axes.plot(x, y, "o-" if len(x) < 20 else "-", color=colour, markersize=4, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(min(y) / 5, max(y) * 5)
        axes.set_title(label, fontsize=9)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25, which="major")
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel("predictions there", fontsize=9)
    return _png(figure)


def _number(value: float) -> str:
    return f"{value:,.0f}x" if value >= 100 else f"{value:.3g}x"


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
