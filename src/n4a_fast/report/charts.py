"""Charts as Vega-Lite specifications, drawn without a browser by vl-convert (extra `report`).

A. A specification is a plain dict with its data inside: one look in reports, files and notebooks, and another renderer
   can take its place.
B. Text takes the colour of its surroundings in a page, so that dark pages need no second drawing.
C. Ids are numbered anew in each picture: several stand in one page, and equal data must give equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from n4a_fast.errors import InvalidInputError, UnsupportedVersionError
from n4a_fast.values import checks

BLUE, GREY = "#4c78a8", "#888888"
_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_WIDTH, _HEIGHT = 320, 240
_FEW = 12  # places on a line that are to be seen by themselves
_ACTIONS = {"export": True, "source": False, "compiled": False, "editor": False}
_STANDS_FOR_LESS = "\ufdd0"  # no character, so no text holds it
_FORMS = (".svg", ".png", ".html", ".json")
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: its kind, what it says, its specification, and how many of how many points it shows."""

    kind: str
    title: str
    spec: dict[str, Any]
    points: int
    of: int

    @property
    def rows(self) -> Rows:
        """The data of the chart."""
        return list(self.spec["data"]["values"])

    def svg(self, color: str = "#222222") -> str:
        """The picture as SVG text, lines and text in `color`."""
        return _numbered(_drawn(orjson.dumps(_colored(self.spec, color)).decode()), self.kind)

    def png(self, scale: float = 2.0) -> bytes:
        """The picture as PNG, on white."""
        spec = {**_colored(self.spec, "#222222"), "background": "white", "padding": 12}
        found: bytes = _renderer().vegalite_to_png(spec, scale=scale)
        return found

    def save(self, path: str | Path) -> Path:
        """Write it as .svg, .png, .html (which needs no network) or .json (the specification)."""
        place = checks.path(path, "path")
        if place.suffix not in _FORMS:
            raise InvalidInputError(f"{place.name!r} has no form that a chart has; use {', '.join(_FORMS)}")
        if place.suffix == ".png":
            place.write_bytes(self.png())
        elif place.suffix == ".json":
            place.write_bytes(json.dumps(self.spec, indent=1).encode())
        elif place.suffix == ".svg":
            place.write_bytes(self.svg().encode())
        else:
            place.write_bytes(self._page().encode())
        return place

    def _page(self) -> str:
        """The chart as a page. The renderer writes texts into its script as they are, and its menu shows sources as
        HTML: a name must neither end the script nor be shown there.
        """
        spec = json.loads(json.dumps(self.spec, ensure_ascii=False).replace("<", _STANDS_FOR_LESS))
        page: str = _renderer().vegalite_to_html(
            {**spec, "usermeta": {"embedOptions": {"actions": _ACTIONS}}}, bundle=True
        )
        return page.replace(_STANDS_FOR_LESS, r"\u003c")

    def __repr__(self) -> str:
        shown = f"{self.points:,} points" if self.points == self.of else f"{self.points:,} of {self.of:,} points"
        return f"Chart({self.kind}, {shown}): {self.title}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        found: dict[str, Any] = {"text/plain": repr(self)}
        try:
            found["image/svg+xml"] = self.svg()
        except UnsupportedVersionError:
            pass  # without the extra there is the text
        return found


@lru_cache(maxsize=32)
def _drawn(spec: str) -> str:
    """The SVG of a specification: while a sweep runs, most charts of a page are those of the drawing before."""
    found: str = _renderer().vegalite_to_svg(spec)
    return found


def _renderer() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise UnsupportedVersionError("vl-convert-python", None, ("1.7",)) from error
    return vl_convert


def can_draw() -> bool:
    """Whether the extra that draws is installed."""
    try:
        _renderer()
    except UnsupportedVersionError:
        return False
    return True


def _colored(spec: dict[str, Any], color: str) -> dict[str, Any]:
    text = {"labelColor": color, "titleColor": color}
    config = {
        "background": None,
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": GREY,
            "gridOpacity": 0.25,
            "domainColor": GREY,
            "tickColor": GREY,
            "labelLimit": 150,
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
        "legend": text,
        "header": text,
        "title": {"color": color, "anchor": "start", "fontSize": 12},
        "text": {"color": color},
        "rule": {"color": color},
    }
    return {
        "$schema": _SCHEMA,
        "width": _WIDTH,
        "height": _HEIGHT,
        "padding": {"left": 16, "right": 12, "top": 8, "bottom": 8},
        **spec,
        "config": config,
    }


def _numbered(svg: str, prefix: str) -> str:
    names = {name: f"{prefix}-{place}" for place, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    for name, new in names.items():
        svg = svg.replace(f'id="{name}"', f'id="{new}"').replace(f"url(#{name})", f"url(#{new})")
    return svg


def prefixed(svg: str, prefix: str) -> str:
    """The picture with ids of its own, to stand beside others in one page."""
    return re.sub(r'(\bid="|url\(#)', rf"\g<1>{prefix}-", svg)


# -- specifications ----------------------------------------------------------------------------


def scatter(rows: Rows, of: int, title: str, unit: str = "") -> Chart:
    """Predicted against measured, with the 1:1 line; rows of `measured` and `predicted`."""
    ends = _ends([row[name] for row in rows for name in ("measured", "predicted")])
    line = {
        "data": {"values": [{"measured": end, "predicted": end} for end in ends]},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
    }
    x, y = _measure("measured", f"measured{unit}", ends), _measure("predicted", f"predicted{unit}", ends)
    layers = [{**line, "encoding": {"x": x, "y": y}}, {"mark": _POINT, "encoding": {"x": x, "y": y}}]
    return Chart("scatter", title, {"data": {"values": rows}, "layer": layers}, len(rows), of)


def residuals(rows: Rows, of: int, title: str, unit: str = "") -> Chart:
    """Predicted minus measured, over measured; rows of `measured` and `predicted`."""
    values = [{"measured": row["measured"], "residual": row["predicted"] - row["measured"]} for row in rows]
    zero = {
        "data": {"values": [{"zero": 0}]},
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": GREY},
        "encoding": {"y": {"field": "zero", "type": "quantitative"}},
    }
    x = _measure("measured", f"measured{unit}", _ends([row["measured"] for row in values]))
    points = {"mark": _POINT, "encoding": {"x": x, "y": _quantity("residual", f"predicted - measured{unit}")}}
    return Chart("residuals", title, {"data": {"values": values}, "layer": [zero, points]}, len(rows), of)


def confusion(rows: Rows, of: int, title: str) -> Chart:
    """How many of each class were called what, shaded by their share; rows of `actual`, `called`, `n`, `share`."""
    names = list(dict.fromkeys(row["actual"] for row in rows))
    turned = {"labelAngle": -40 if max(map(len, names), default=0) > 7 else 0}
    x = {"field": "called", "type": "nominal", "title": "predicted", "sort": names, "axis": turned}
    y = {"field": "actual", "type": "nominal", "title": "measured", "sort": names, "axis": {"titlePadding": 14}}
    return _cells("confusion", title, rows, of, x, y, "share", "n", "d", reverse=False)


def heatmap(rows: Rows, of: int, title: str, metric: str, higher: bool) -> Chart:
    """The best score of each preprocessing and model; rows of `preprocessing`, `model`, `score`."""
    x = {"field": "model", "type": "nominal", "title": None, "sort": None, "axis": {"labelAngle": -40}}
    y = {"field": "preprocessing", "type": "nominal", "title": None, "sort": None}
    return _cells("heatmap", f"{title}: best {metric}", rows, of, x, y, "score", "score", ".3g", reverse=not higher)


def scores(rows: Rows, of: int, title: str, metric: str) -> Chart:
    """How many chains have which score; rows of `start`, `end`, `n`."""
    x = {"field": "start", "type": "quantitative", "title": metric, "bin": {"binned": True}}
    encoding = {"x": x, "x2": {"field": "end"}, "y": _count("n", "chains")}
    return Chart(
        "scores",
        title,
        {"data": {"values": rows}, "mark": {"type": "bar", "color": BLUE}, "encoding": encoding},
        len(rows),
        of,
    )


def boxes(rows: Rows, of: int, title: str, metric: str) -> Chart:
    """Quartiles of the scores of each model; rows of `model`, `low`, `q1`, `median`, `q3`, `high`."""
    y = {"field": "model", "type": "nominal", "title": None, "sort": None}
    span = {
        "mark": {"type": "rule", "color": GREY},
        "encoding": {"y": y, "x": _quantity("low", metric), "x2": {"field": "high"}},
    }
    box = {
        "mark": {"type": "bar", "color": BLUE, "height": 10},
        "encoding": {"y": y, "x": _quantity("q1", metric), "x2": {"field": "q3"}},
    }
    tick = {
        "mark": {"type": "tick", "color": "white", "height": 10},
        "encoding": {"y": y, "x": _quantity("median", metric)},
    }
    height = max(60, 20 * len(rows))
    return Chart(
        "boxes", title, {"data": {"values": rows}, "height": height, "layer": [span, box, tick]}, len(rows), of
    )


def folds(rows: Rows, of: int, title: str, metric: str) -> Chart:
    """The score of each fold of the best chains; rows of `chain`, `fold`, `score`."""
    y = {"field": "chain", "type": "nominal", "title": None, "sort": None}
    points = {
        "mark": {"type": "point", "filled": True, "color": BLUE, "opacity": 0.7},
        "encoding": {"y": y, "x": _quantity("score", metric)},
    }
    mean = {
        "mark": {"type": "tick", "thickness": 2},
        "encoding": {"y": y, "x": {**_quantity("score", metric), "aggregate": "mean"}},
    }
    return Chart(
        "folds",
        title,
        {
            "data": {"values": rows},
            "height": max(60, 20 * len({row["chain"] for row in rows})),
            "layer": [points, mean],
        },
        len(rows),
        of,
    )


def timeline(rows: Rows, of: int, title: str) -> Chart:
    """Pipelines that ended over time; rows of `time`, `done`, `failed` (both counted up)."""
    begun, ended = (datetime.fromisoformat(rows[place]["time"]) for place in (0, -1))
    spans = ((timedelta(minutes=5), "%H:%M:%S"), (timedelta(days=1), "%H:%M"), (timedelta.max, "%b %d %H:%M"))
    form = next(form for span, form in spans if ended - begun <= span)
    axis = {"format": form, "tickCount": 5, "title": "UTC"}
    x = {"field": "time", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}
    layers: list[dict[str, Any]] = []
    for name, color in (("done", BLUE), ("failed", "#d6393c")):
        if not rows[-1][name]:
            continue
        y = _count(name, "pipelines")
        last = {"values": [{**rows[-1], "told": f"{rows[-1][name]:,} {name}"}]}
        label = {"type": "text", "align": "right", "dy": -6, "color": color, "fontWeight": "bold"}
        layers += [
            {"mark": {"type": "line", "color": color, "point": len(rows) < _FEW}, "encoding": {"x": x, "y": y}},
            {"data": last, "mark": label, "encoding": {"x": x, "y": y, "text": {"field": "told", "type": "nominal"}}},
        ]
    return Chart("timeline", title, {"data": {"values": rows}, "layer": layers}, len(rows), of)


def impact(rows: Rows, of: int, title: str, metric: str) -> Chart:
    """The median score with a preprocessing step minus that without it; rows of `step`, `difference`, `n`."""
    y = {"field": "step", "type": "nominal", "title": None, "sort": None}
    x = {"field": "difference", "type": "quantitative", "title": f"median {metric} with - without"}
    encoding = {"y": y, "x": x}
    return Chart(
        "impact",
        title,
        {
            "data": {"values": rows},
            "height": max(60, 18 * len(rows)),
            "mark": {"type": "bar", "color": BLUE},
            "encoding": encoding,
        },
        len(rows),
        of,
    )


_POINT = {"type": "point", "filled": True, "size": 18, "opacity": 0.6, "color": BLUE}


def _cells(
    kind: str, title: str, rows: Rows, of: int, x: Any, y: Any, value: str, told: str, form: str, *, reverse: bool
) -> Chart:
    shade = {"field": value, "type": "quantitative", "legend": None, "scale": {"scheme": "viridis", "reverse": reverse}}
    low, high = _ends([row[value] for row in rows])
    middle = (low + high) / 2
    dark = f"datum['{value}'] {'>' if reverse else '<'} {middle}"
    text = {"field": told, "type": "quantitative", "format": form}
    color = {"condition": {"test": dark, "value": "white"}, "value": "black"}
    bare: dict[str, Any] = {"ticks": False, "domain": False, "labelOverlap": False}
    x, y = ({**axis, "axis": {**axis.get("axis", {}), **bare}} for axis in (x, y))
    layers = [
        {"mark": "rect", "encoding": {"x": x, "y": y, "color": shade}},
        {"mark": {"type": "text", "fontSize": 9}, "encoding": {"x": x, "y": y, "text": text, "color": color}},
    ]
    size = {"width": {"step": 52}, "height": {"step": 22}}
    return Chart(kind, title, {"data": {"values": rows}, **size, "layer": layers}, len(rows), of)


def _quantity(field: str, title: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def _count(field: str, title: str) -> dict[str, Any]:
    whole = {"tickMinStep": 1, "labelExpr": "datum.value % 1 ? '' : format(datum.value, ',d')"}
    return {"field": field, "type": "quantitative", "title": title, "axis": whole}


def _measure(field: str, title: str, ends: Sequence[float]) -> dict[str, Any]:
    return {**_quantity(field, title), "scale": {"zero": False, "domain": list(ends), "nice": True}}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)
