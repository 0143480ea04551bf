"""What objects show of themselves: a few lines of text, or HTML without scripts and styles; bounded, never an error."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from n4a_fast.values.texttable import plain, plain_lines

if TYPE_CHECKING:
    import numpy as np

BINS, LOOKED_AT = 24, 100  # of a distribution; arrays that are looked at for one that is there
_LABELS = 6  # named in a cell
ROWS, LONGEST = 20, 200  # of a report, and characters of each text in it
LINES = 5  # of a report as text
P = ParamSpec("P")


def never_raises(cell: Callable[P, str | None]) -> Callable[P, str | None]:
    """None instead of an error: the notebook then shows the text."""

    @wraps(cell)
    def shown(*args: P.args, **kwargs: P.kwargs) -> str | None:
        try:
            return cell(*args, **kwargs)
        except Exception:  # whatever it is, a cell must not fail for showing its result
            return None

    return shown


@never_raises
def arrays_cell(arrays: Any) -> str:
    """Each column of loaded arrays: shapes, range, and the first one's distribution."""
    import numpy as np

    rows = []
    for name in arrays.columns:
        views = getattr(arrays, name)
        first = next((views[place] for place in range(min(len(views), LOOKED_AT)) if views[place] is not None), None)
        if first is None:
            rows.append((name, "none", "", "", ""))
            continue
        rows.append((name, str(np.shape(first)), *_told(np.ravel(first))))
    body = "".join(
        f"<tr><td>{html_text(a)}</td><td>{html_text(b)}</td><td>{html_text(c)}</td><td>{html_text(d)}</td><td>{e}</td></tr>"
        for a, b, c, d, e in rows
    )
    heads = "".join(f"<th>{each}</th>" for each in ("array", "shape of the first", "its values", "missing", ""))
    return f"<p>{html_text(repr(arrays))}</p><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _told(values: np.ndarray[Any, Any]) -> tuple[str, str, str]:
    """What an array holds, how much of it is missing, and its distribution: of numbers, or of labels."""
    import numpy as np

    if values.dtype == object:
        labels = Counter(each for each in values.tolist() if each is not None)
        shown = ", ".join(f"{label} {n}" for label, n in labels.most_common(_LABELS))
        rest = f", and {len(labels) - _LABELS:,} others" if len(labels) > _LABELS else ""
        return f"{shown}{rest}", f"{len(values) - labels.total()}", _bars([n for _, n in labels.most_common(BINS)])
    good = values[np.isfinite(values)]
    span = f"{good.min():.4g} to {good.max():.4g}, mean {good.mean():.4g}" if len(good) else ""
    counts = np.histogram(good, bins=BINS)[0].tolist() if len(good) else []
    return span, f"{len(values) - len(good)}", _bars(counts)


@never_raises
def plan_cell(plan: Any) -> str:
    """The steps of a plan as boxes; those of a compiled chain stand in one frame."""
    frame = "border:2px solid #4c78a8" if plan.compiled else "border:1px dashed #888"
    boxes = "".join(
        f'<li style="border:1px solid #888;padding:2px 8px;margin:2px">{html_text(step)}</li>' for step in plan.steps
    )
    listed = f'<ol style="{frame};padding:4px;list-style:none;display:inline-block">{boxes}</ol>' if boxes else ""
    return f"<p>{html_text(str(plan).splitlines()[0])}</p>{listed}"


def report_text(told: str, rows: Sequence[str] = ()) -> str:
    """What a call has done, in a sentence, and at most `LINES` of its rows."""
    rest = [f"  and {len(rows) - LINES:,} more"] if len(rows) > LINES else []
    return "\n".join([plain_lines(told), *(f"  {_short(plain(row))}" for row in rows[:LINES]), *rest])


@never_raises
def report_cell(told: str, rows: Sequence[Mapping[str, Any]], is_bad: bool = False) -> str:
    """What a call has done, in a sentence, and at most `ROWS` of its rows, in red where they are what is wrong."""
    heads = "".join(f"<th>{html_text(name)}</th>" for name in (rows[0] if rows else ()))
    cells = ("".join(f"<td>{html_text(_short(value))}</td>" for value in row.values()) for row in rows[:ROWS])
    body = "".join(f"<tr>{each}</tr>" for each in cells)
    look = ' style="color:#c0392b"' if is_bad else ""
    listed = f"<table><thead><tr>{heads}</tr></thead><tbody{look}>{body}</tbody></table>" if rows else ""
    rest = f"<p>and {len(rows) - ROWS:,} more</p>" if len(rows) > ROWS else ""
    return f"<p>{html_text(told)}</p>{listed}{rest}"


def _short(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    shown = str(value)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def _bars(counts: list[int]) -> str:
    if not counts:
        return ""
    top = max(*counts, 1)
    bars = "".join(
        f'<rect x="{4 * place}" y="{20 - 20 * n / top:.1f}" width="3" height="{20 * n / top:.1f}" fill="#4c78a8"/>'
        for place, n in enumerate(counts)
    )
    return f'<svg width="{4 * BINS}" height="20" role="img" aria-label="distribution">{bars}</svg>'


def html_text(value: Any) -> str:
    """A value as text that is safe between tags."""
    return html.escape(plain(value))
