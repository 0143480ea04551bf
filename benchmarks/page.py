"""The run of `make bench` as people read it: one HTML page, PNGs, a line of history, and a table.

    python benchmarks/page.py build/bench.json      the page and the PNGs below build/bench/, and a line in
    history.jsonl
    python benchmarks/page.py --numbers             the table between the markers of docs/benchmarks.md, from history's
    last line

The page needs no other file: its pictures are inside.
"""

from __future__ import annotations

import base64
import json
import sys
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
HISTORY = FOLDER / "history.jsonl"
PAGE = FOLDER.parent / "docs" / "benchmarks.md"
PICTURES = FOLDER.parent / "docs" / "benchmarks"
BEGIN, END = "<!-- benchmarks: made by make numbers -->", "<!-- end of benchmarks -->"
# the README's numbers: what, and what is said of it
SIX = (
    (
        "a durable drop-in pipeline of 21 predictions with arrays",
        "{dropin_vs_nirs4all_1_4_10[time]} to {dropin_vs_nirs4all_0_7_1[time]};"
        " {dropin_vs_nirs4all_0_7_1[value]} times nirs4all 0.7.1's own store,"
        " {dropin_vs_nirs4all_1_4_10[value]} times that of 1.4.10",
    ),
    (
        "a million predictions of 200 samples by the bulk call",
        "{a_million_end_to_end[time]}, {bytes_kept_per_prediction[value]} bytes each",
    ),
    ("arrays of 10,000 neighbours among a million", "{load_contiguous_of_a_million[time]}"),
    (
        "`replay_chain` on 1,000 spectra: SNV, Savitzky-Golay, MinMax, 5 PLS folds",
        "{replay_1000_rows[time]}, {replay_1000_rows[value]} times the operators",
    ),
    (
        "1,000 chains on 1,000 spectra",
        "{replay_1000_chains[time]}, {replay_dgemm_peak[value]} of the rate of the matrix product alone",
    ),
    ("4 writing processes on one workspace", "{writers_4_vs_1[value]} times one process"),
)
ORDER = (
    "write",
    "read",
    "queries",
    "chains",
    "artifacts",
    "replay",
    "bundles",
    "processes",
    "lifecycle",
    "peers",
    "curves",
    "growth",
    "counters",
)
HEADLINES = (
    "dropin_pipeline_vs_row_by_row",
    "dropin_vs_nirs4all_0_7_1",
    "dropin_vs_nirs4all_1_4_10",
    "dropin_sustained",
    "bulk_vs_bare_insert",
    "a_million_end_to_end",
    "bytes_kept_per_prediction",
    "bytes_written_over_kept",
    "load_arrays_vs_one_by_one",
    "load_contiguous_of_a_million",
    "load_random_of_a_million",
    "lookup_with_arrays_of_a_million",
    "top_predictions_of_a_million",
    "query_of_a_pipeline_of_a_million",
    "open_a_million",
    "delete_run_of_a_million",
    "vacuum_a_million",
    "save_new_artifacts_vs_compressed",
    "load_artifacts_vs_compressed",
    "replay_1_row",
    "replay_1000_rows",
    "replay_10000_rows",
    "replay_onnx_1000_rows",
    "replay_1000_chains",
    "replay_dgemm_peak",
    "replay_first_touch",
    "writers_4_vs_1",
    "merge_of_100_shards_vs_bulk",
)
STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}
table{border-collapse:collapse;width:100%;font-size:13px;table-layout:fixed}th{width:7%}th:first-child{width:32%}th:nth-child(2){width:22%}
th:nth-child(3){width:13%}th:nth-child(n+3){text-align:right}th:last-child{width:12%;text-align:left}
td,th{padding:.35rem .6rem;box-sizing:border-box;text-align:left;vertical-align:top;border-bottom:1px solid #e4e4e4}
th{font-weight:600;color:#666}td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}td.v{font-weight:600}
.bad{color:#b3261e}.kind{color:#888;font-size:11px}.small{color:#777;font-size:12px}
img{max-width:100%;margin:.6rem 0}svg{display:block}"""


def main(results: Path) -> None:
    run = json.loads(results.read_text())
    remember(run)
    output = results.with_suffix("")
    output.mkdir(exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    pictures = {
        name: png
        for name, png in (("ratios", charts.ratios(run["results"])), ("growth", charts.growth(run["results"])))
        if png
    }
    for name, png in pictures.items():
        (PICTURES / f"{name}.png").write_bytes(png)
    (output / "index.html").write_text(page(run, pictures, history()))
    print(
        f"{output / 'index.html'}: {len(run['results'])} benchmarks; pictures in {PICTURES.relative_to(FOLDER.parent)},"
        f" numbers in {HISTORY.name}"
    )


# -- history -------------------------------------------------------------------------------


def remember(run: dict[str, Any]) -> None:
    """Add the run to the history: commit, machine, and of each benchmark what its next one is compared with."""
    numbers = {result["declared"]["name"]: _summary(result) for result in run["results"]}
    with HISTORY.open("a") as file:
        file.write(json.dumps({key: run[key] for key in ("date", "commit", "machine")} | {"numbers": numbers}) + "\n")


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    times = {side: float(f"{result[side]:.4g}") for side in ("ours", "theirs") if result[side] is not None}
    notes = {
        key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in result["notes"].items()
    }
    texts = {key: result["declared"][key] for key in ("workload", "baseline", "size")}
    return {
        "value": float(f"{result['value']:.4g}"),
        "unit": result["unit"],
        "capability": result["capability"],
        **texts,
        **times,
        "notes": notes,
    }


def history() -> list[dict[str, Any]]:
    return [json.loads(line) for line in HISTORY.read_text().splitlines()] if HISTORY.exists() else []


# -- page ----------------------------------------------------------------------------------


def page(run: dict[str, Any], pictures: dict[str, bytes], runs: list[dict[str, Any]]) -> str:
    """The whole page as HTML."""
    machine = run["machine"]
    facts = ", ".join(
        f"{name} {value}" for name, value in machine.items() if name not in ("processor", "cores", "load")
    )
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>n4a_fast benchmarks</title><style>{STYLE}</style>",
        f"<h1>n4a_fast: benchmarks of {escape(run['date'])} UTC</h1>",
        (
            f"<p class=small>commit {escape(run['commit'])} · {escape(machine['processor'])}, {machine['cores']} cores,"
            f" load {machine['load']}<br>"
        ),
        f"{escape(facts)}</p>",
        (
            "<p>Each number compares two sides that took turns in one run; <i>x</i> is baseline time over our time,"
            " <i>times as long</i> ours over it. Milliseconds are of this machine and this day. A floor is what"
            " <code>make gate</code> holds; the last column is the history of the number.</p>"
        ),
        *(
            f"<h2>{title}</h2>{_image(pictures[name])}"
            for name, title in (("ratios", "Ratios"), ("growth", "Growth to a million rows"))
            if name in pictures
        ),
    ]
    ordered = sorted(run["results"], key=lambda result: (_order(result["capability"]), result["declared"]["name"]))
    for capability, results in groupby(ordered, key=lambda result: result["capability"]):
        rows = "".join(
            _row(result, [line["numbers"].get(result["declared"]["name"], {}).get("value") for line in runs])
            for result in results
        )
        head = "<tr><th>What<th>Baseline<th>Number<th>Floor<th>Ours<th>Baseline<th>History</tr>"
        parts.append(f"<h2>{escape(capability.capitalize())}</h2><table>{head}{rows}</table>")
    return "\n".join(parts)


def _order(capability: str) -> tuple[int, str]:
    """What people ask for first comes first."""
    return (ORDER.index(capability) if capability in ORDER else len(ORDER), capability)


def _row(result: dict[str, Any], past: list[float | None]) -> str:
    declared, floor = result["declared"], result["floor"]
    limit = " ".join(
        f"{'≥' if key == 'at_least' else '≤'} {floor[key]:g}" for key in ("at_least", "at_most") if key in floor
    )
    notes = " · ".join(f"{escape(key.replace('_', ' '))}: {_plain(value)}" for key, value in result["notes"].items())
    about = f"{declared['kind']} · {declared['name']} · {declared['size']:,} · threads {declared['threads']}"
    cells = (
        (
            f"<td>{escape(declared['workload'])}{_size(declared['size'])}<div"
            f" class=kind>{escape(about)}</div>{notes and f'<div class=small>{notes}</div>'}"
        ),
        f"<td class=small>{escape(declared['baseline'])}",
        f"<td class='n v'>{_plain(result['value'])} {escape(result['unit'])}",
        f"<td class=n title='{escape(floor.get('why', ''), quote=True)}'>{limit}",
        f"<td class=n>{_time(result['ours'])}",
        f"<td class=n>{_time(result['theirs'])}",
        f"<td>{_spark([value for value in past if value is not None][-30:])}",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _size(size: int) -> str:
    """The size, where it tells the workload from its smaller twin."""
    return f" ({size:,})" if size >= 100_000 else ""


def _spark(values: list[float]) -> str:
    """A small line of the values, oldest first, as SVG."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    points = " ".join(
        f"{2 + 86 * place / (len(values) - 1):.1f},{20 - 16 * (value - low) / spread:.1f}"
        for place, value in enumerate(values)
    )
    return (
        f"<svg width=90 height=24><title>{low:.4g} to {high:.4g}</title><polyline points='{points}' fill=none"
        " stroke='#2f6f9f' stroke-width=1.5 /></svg>"
    )


def _image(png: bytes) -> str:
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


def _plain(value: float | str) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"{seconds:.3g} s"
        if seconds >= 1
        else f"{1000 * seconds:.3g} ms"
        if seconds >= 1e-3
        else f"{1e6 * seconds:.3g} µs"
    )


# -- the page's table --------------------------------------------------------------------


def numbers() -> None:
    """Write the tables between the markers of docs/benchmarks.md and README.md, from the newest line of history."""
    run = history()[-1]
    for page, made in ((PAGE, table(run)), (README, six(run))):
        text = page.read_text()
        if BEGIN not in text or END not in text:
            sys.exit(f"{page.name} needs the lines {BEGIN} and {END}")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")
        print(f"{page.name}: the table of {run['date']}, commit {run['commit']}")


def six(run: dict[str, Any]) -> str:
    """Markdown of the README's numbers."""
    numbers = {
        name: {"value": _plain(number["value"]), "time": _time(number.get("ours"))}
        for name, number in run["numbers"].items()
    }
    rows = (f"| {what} | {says.format_map(numbers)} |" for what, says in SIX)
    return "\n".join(["| | |", "|---|---|", *rows])


def table(run: dict[str, Any]) -> str:
    """Markdown of the numbers in HEADLINES that the run has."""
    lines = ["| What | Compared with | Number | Time |", "|---|---|---|---|"]
    for name in HEADLINES:
        if (number := run["numbers"].get(name)) is not None:
            baseline = "" if number["baseline"].startswith("none") else number["baseline"]
            time = _time(number.get("ours"))
            lines.append(
                f"| {number['workload']}{_size(number['size'])} | {baseline} | {_plain(number['value'])}"
                f" {number['unit']} | {time} |"
            )
    machine = run["machine"]
    facts = (
        f"{run['date']} UTC, commit {run['commit']}, {machine['cores']} cores of {machine['processor']}, load"
        f" {machine['load']}, DuckDB {machine['duckdb']}"
    )
    return "\n".join(
        [
            *lines,
            "",
            (
                f"{facts}. *x* is the baseline's time over ours, *times as long* ours over the baseline's, both in the"
                " same run."
            ),
        ]
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--numbers"]:
        numbers()
    else:
        import charts

        main(Path(sys.argv[1]))
