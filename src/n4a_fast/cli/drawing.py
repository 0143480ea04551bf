"""`plot` and `report`: charts as files, and a workspace as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n4a_fast.cli.application import OneWorkspace, WorkspaceOption, command, ids, one, reading, say, split, stop
from n4a_fast.cli.printing import JsonOption, print_document, write

DatasetOption = Annotated[str | None, typer.Option(help="Only this data set.")]
MetricOption = Annotated[str | None, typer.Option("--metric", "-m", help="Only this metric.")]
RunOption = Annotated[str | None, typer.Option(help="Only this run: an id, the end of one, or a name.")]
ChartsOption = Annotated[bool, typer.Option("--charts/--no-charts", help="Pictures (extra report), or tables only.")]


@command("plot", "plot my_sweep scatter @best -o best.png")
def plot(
    things: Annotated[list[str] | None, ids("KIND [ID]", "the kind of chart, and of what")] = None,
    option: WorkspaceOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .png, .svg, .html or .json file.")] = None,
    dataset: DatasetOption = None,
    metric: MetricOption = None,
    run: RunOption = None,
    data: Annotated[Path | None, typer.Option(help="The chart's numbers, as CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A chart of a chain, of a data set or of a run, as a file.

    KIND: scatter, residuals, confusion of a chain; heatmap, scores, boxes, folds, impact of a data set;
    timeline of a run.
    """
    from n4a_fast.errors import UnsupportedVersionError

    place, rest = split(things, option)
    if not 1 <= len(rest) <= 2:
        stop("name the kind of chart, and a chain or run where it is of one", 2)
    path = out or Path(f"{rest[0]}.png")
    with reading(place) as store:
        chart = store.plot(rest[0], rest[1] if len(rest) > 1 else None, dataset=dataset, metric=metric, run=run)
    try:
        chart.save(path)
    except UnsupportedVersionError as error:
        stop(f"{error}, or pip install 'n4a_fast[report]'", 2)
    if data is not None:
        import polars as pl

        pl.DataFrame(chart.rows).write_csv(data)
    if as_json:
        content = {"path": str(path), "kind": chart.kind, "points": chart.points, "of": chart.of}
        print_document("plot", place, content)
    else:
        write(f"{path}  {chart!r}")


@command("report", "report my_sweep -o report.html")
def report(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file.")] = Path("report.html"),
    dataset: DatasetOption = None,
    metric: MetricOption = None,
    run: RunOption = None,
    title: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    charts: ChartsOption = True,
    as_json: JsonOption = False,
) -> None:
    """The workspace as one HTML file, to keep and to send.

    No network, no scripts needed, a few megabytes at most.
    """
    from n4a_fast.report.charts import can_draw

    place = one(workspace, option)
    if charts and not can_draw():
        say("without charts: pip install 'n4a_fast[report]'")
    from n4a_fast.cli.workspaces import bars

    scope = {"run": run, "dataset": dataset, "metric": metric, "title": title}
    with reading(place) as store, bars() as told:
        made = store.report(out, **scope, charts=charts, progress=lambda done, n: told("drawing", done, n))
    if as_json:
        print_document("report", place, {"path": str(made.path), "bytes": made.nbytes, "seconds": made.seconds})
    else:
        write(str(made))
