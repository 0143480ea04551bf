"""The report: bounded, safe, the same for the same data, and right in a real browser at two widths."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PREDICTION, Sweep, begin_pipeline, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.report import figures
from n4a_fast.report.charts import can_draw

BROWSER = shutil.which("chromium") or shutil.which("chromium-headless-shell")
drawn = pytest.mark.skipif(not can_draw(), reason="needs the extra report (vl-convert-python)")
browsed = pytest.mark.skipif(
    BROWSER is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium (apt-get install chromium) and playwright (pip install playwright)",
)
WICKED = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "مرحبا \u202eevil", "x" * 200, "a\nb&c"]


def save_chains(
    store: WorkspaceStore, count: int, folds: int = 3, names: list[str] | None = None, least: float = 1.0
) -> str:
    """A run of `count` regression chains with arrays, and one failed pipeline; the run's id."""
    rng = np.random.default_rng(0)
    run = store.begin_run((names or ["nightly"])[0], {}, [{"name": "corn"}])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("pipeline_id", "chain_id", "fold_id", "val_score", "model_name", "preprocessings")
    }
    y_true, y_pred = [], []
    for number in range(count):
        label = names[number % len(names)] if names else f"step {number % 40}>SNV"
        pipeline = begin_pipeline(store, run, f"p{number}")
        chain = save_chain(store, pipeline, preprocessings=label)
        for fold in range(folds):
            values = (pipeline, chain, str(fold), least + rng.random(), (names or [f"model {number % 20}"])[-1], label)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
            truth = rng.random(8)
            y_true.append(truth)
            y_pred.append(truth + 0.1 * rng.random(8))
        store.complete_pipeline(pipeline, 1.0, 1.0, "rmse", 1)
    fixed = {name: value for name, value in PREDICTION.items() if name not in columns and name != "scores"}
    store.save_predictions({**fixed, **columns}, y_true=y_true, y_pred=y_pred)
    store.fail_pipeline(begin_pipeline(store, run, "broken"), (names or ["SVD did not converge"])[-1])
    store.complete_run(run, {})
    return run


def without_date(page: str) -> str:
    return re.sub(r"Made .* by n4a_fast", "Made by n4a_fast", page)


@pytest.mark.long
def test_nothing_in_the_page_grows_with_the_predictions(tmp_path: Path) -> None:
    sizes = []
    for count in (150, 1500):
        with WorkspaceStore(tmp_path / str(count)) as store:
            save_chains(store, count)
            sizes.append(store.report(tmp_path / f"{count}.html").nbytes)
    assert sizes[1] < 1.2 * sizes[0]
    assert sizes[1] < 3_000_000


@pytest.mark.long
def test_equal_workspaces_give_equal_bytes(store: WorkspaceStore, tmp_path: Path) -> None:
    save_chains(store, 5)
    pages = [Path(store.report(tmp_path / name).path).read_text() for name in ("a.html", "b.html")]
    assert without_date(pages[0]) == without_date(pages[1])


def test_the_page_reads_without_scripts(store: WorkspaceStore, tmp_path: Path) -> None:
    save_chains(store, 5)
    page = store.report(tmp_path / "r.html", charts=False).path.read_text()
    best = store.leaderboard().best.chain_id
    for expected in (
        "corn by rmse",
        best[-8:],
        best,
        "failed pipelines by error",
        "SVD did not converge",
        "ranked by the mean",
    ):
        assert expected in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)
    assert "<svg" not in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.long
def test_what_users_write_is_text(store: WorkspaceStore, tmp_path: Path) -> None:
    save_chains(store, 8, names=WICKED)
    page = store.report(tmp_path / "r.html").path.read_text()
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize("filled", ["nothing", "no scores", "one prediction", "classes"])
def test_a_report_is_made_of_any_workspace(store: WorkspaceStore, tmp_path: Path, filled: str) -> None:
    if filled != "nothing":
        run = store.begin_run("r", {}, [{"name": "corn", "classes": ["a", "b"]}])
        pipeline = begin_pipeline(store, run)
        changes: dict[str, Any] = {"val_score": float("nan")} if filled == "no scores" else {}
        if filled == "classes":
            changes = {"task_type": "classification", "metric": "accuracy"}
        prediction = predict(store, pipeline, save_chain(store, pipeline), **changes)
        if filled == "classes":
            store.save_prediction_arrays(prediction, np.array([0, 0, 1.0]), np.array([0, 1, 1.0]))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    page = store.report(tmp_path / "r.html").path.read_text()
    assert "</html>" in page
    assert ("nothing" in filled) == ("No chain of a completed pipeline is ranked yet" in page)


@drawn
@pytest.mark.long
def test_charts_are_saved_in_every_form(store: WorkspaceStore, tmp_path: Path) -> None:
    save_chains(store, 12)
    for kind in figures.KINDS:
        chart = store.plot(kind)
        assert chart.kind == kind
        assert chart.svg().startswith("<svg")
    chart = store.plot("scatter")
    assert chart.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in chart.save(tmp_path / "a.svg").read_text()
    assert "vega" in chart.save(tmp_path / "a.html").read_text()
    assert set(chart._repr_mimebundle_()) == {"text/plain", "image/svg+xml"}
    assert repr(chart).startswith("Chart(scatter, 24 points)")


def test_what_is_counted_has_whole_numbers_and_no_failure_is_told_where_there_was_none(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [{"name": "corn"}])
    for number in range(2):
        pipeline = begin_pipeline(store, run, f"p{number}")
        predict(store, pipeline, save_chain(store, pipeline), val_score=10.0 + 10 * number)
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    drawn = {kind: store.plot(kind).svg() for kind in ("timeline", "scores")}
    assert "2 done" in drawn["timeline"]
    assert "failed" not in drawn["timeline"]
    for svg in drawn.values():
        assert not re.findall(r">0\.5<|>1\.5<", svg.partition("axis")[2])


def test_pipelines_are_counted_up_and_steps_compared_by_medians(store: WorkspaceStore) -> None:
    save_chains(store, 45)
    counted = store.plot("timeline").rows
    assert counted[-1]["done"] == 45
    assert counted[-1]["failed"] == 1
    for name in ("done", "failed", "time"):
        values = [row[name] for row in counted]
        assert values == sorted(values)
    frame = store.leaderboard(n=None).frame
    expected = []
    for number in range(40):  # the first five are of two chains each; SNV, which all have, is compared with nothing
        has = frame["preprocessings"] == f"step {number}>SNV"
        with_, without = (float(np.median(frame.filter(part)["val_score"].to_numpy())) for part in (has, ~has))
        expected.append({"step": f"step {number}", "difference": with_ - without, "n": 2 if number < 5 else 1})
    assert store.plot("impact").rows == sorted(expected, key=lambda row: row["difference"])[: figures.COLUMNS]


def test_a_scatter_keeps_the_largest_residuals(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = predict(store, sweep.pipeline, sweep.chain)
    truth = np.linspace(0, 1, 12_000)
    guess = truth.copy()
    guess[77], guess[9_999] = 5.0, -7.0
    store.save_prediction_arrays(prediction, truth, guess)
    chart = store.plot("scatter", sweep.chain)
    assert (chart.points, chart.of) == (figures.POINTS, 12_000)
    rows = figures.sampled(truth, guess)
    assert {5.0, -7.0} <= {row["predicted"] for row in rows}
    assert rows == figures.sampled(truth, guess)


# -- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    with WorkspaceStore(place / "workspace") as store:
        save_chains(store, 30)
        save_chains(store, 6, names=WICKED)
        # the best one, named as nirs4all names its chains: without a place to break the line
        save_chains(store, 1, names=["MinMaxScaler>StandardNormalVariate>SavitzkyGolay>FirstDerivative"], least=0.1)
        return store.report(place / "r.html").path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@browsed
@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_right_in_a_browser(report: Path, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    outside = (
        "Array.from(document.querySelectorAll('svg')).filter(s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert page.evaluate(outside) == 0
    board = page.locator("table.board").first
    scores = (
        "Array.from(document.querySelector('table.board').tBodies[0].rows).map(r => Number(r.cells[1].dataset.value))"
    )
    assert page.evaluate(scores) == sorted(page.evaluate(scores))
    button = board.locator("th").nth(1).locator("button")
    button.press("Enter")
    button.press("Enter")
    assert page.evaluate(scores) == sorted(page.evaluate(scores), reverse=True)
    assert board.locator("th").nth(1).get_attribute("aria-sort") == "descending"
    page.locator("input.filter").first.fill("step 7>")
    assert board.locator("tbody tr:visible").count() == 1
    assert told == []
    assert asked == [report.as_uri()]
    page.close()


@browsed
@pytest.mark.skipif(
    importlib.util.find_spec("axe_playwright_python") is None, reason="needs axe (pip install axe-playwright-python)"
)
@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(report: Path, browser: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.goto(report.as_uri())
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
    page.close()
