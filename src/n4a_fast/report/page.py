"""The report: a workspace as one HTML file, which asks for nothing, reads without scripts, and prints.

A. Nothing in it grows with the predictions: boards, rows, points, bins and errors have bounds (`figures`).
B. Equal workspaces give equal bytes but for one line, the one that says when and by which version it was made.
C. What users wrote is escaped; a Content-Security-Policy lets the page load nothing at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n4a_fast.artifacts.checkup import Progress
from n4a_fast.durable.publish import write_text
from n4a_fast.report.html import text
from n4a_fast.report.sections import ROWS, head, sections
from n4a_fast.report.styles import SCRIPT, STYLE
from n4a_fast.values.notebook import report_cell, report_text
from n4a_fast.version import __version__

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head>
<body><main>
<h1>{title}</h1>
{body}
</main>
<footer>
{footer} by n4a_fast {version}
</footer>
{script}</body></html>
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report that was written: where, how large, and how long it took."""

    path: Path
    nbytes: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.path}: {self.nbytes / 1000:,.0f} kB, made in {self.seconds:.1f} s; open it in any browser"

    def __repr__(self) -> str:
        return report_text(str(self))

    def _repr_html_(self) -> str | None:
        return report_cell(str(self), ())

    def __fspath__(self) -> str:
        return str(self.path)


def write_report(
    store: Any,
    path: Path,
    *,
    run: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
    with_charts: bool = True,
    title: str | None = None,
    progress: Progress | None = None,
) -> ReportFile:
    """Write the report of a store; the file appears whole or not at all."""
    began = time.perf_counter()
    scope = {"run": run, "dataset": dataset, "metric": metric, "title": title}
    page = page_of(store, **scope, with_charts=with_charts, progress=progress)
    write_text(path, page)
    return ReportFile(path, path.stat().st_size, time.perf_counter() - began)


def page_of(
    store: Any,
    *,
    run: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
    with_charts: bool = True,
    title: str | None = None,
    progress: Progress | None = None,
) -> str:
    """The report as text."""
    body = content_of(store, run=run, dataset=dataset, metric=metric, with_charts=with_charts, progress=progress)
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return document(title or title_of(store, "report"), body, _POLICY, f"<script>{SCRIPT}</script>", made)


def content_of(
    store: Any,
    *,
    run: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
    with_charts: bool = True,
    progress: Progress | None = None,
) -> str:
    """Head and sections of the report."""
    boards = store.leaderboard(metric, dataset=dataset, run=run, n=ROWS, all_scores=True)
    return head(store, boards, run) + sections(store, boards, run, with_charts, progress)


def title_of(store: Any, what: str) -> str:
    """What a page of the workspace is called."""
    return f"{store.workspace_path.resolve().name}: {what}"


def document(title: str, body: str, policy: str, script: str, footer: str) -> str:
    """A whole page; `policy` is what it may load, `script` an element."""
    shown = {"title": text(title), "footer": text(footer), "version": __version__}
    return _PAGE.format(**shown, style=STYLE, body=body, policy=policy, script=script)
