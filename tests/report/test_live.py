"""`n4a-fast ui`: the report over a running sweep, which it does not disturb, for the one browser that was invited."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joblib
import pytest
from helpers import DEADLINE, begin_pipeline, child, command_line, finish, predict, read_line, save_chain

from n4a_fast import WorkspaceStore

pytest.importorskip("starlette", reason="needs the extra ui")
pytest.importorskip("uvicorn", reason="needs the extra ui")

from n4a_fast.report.live import Look
from n4a_fast.report.page import content_of
from n4a_fast.report.sections import chain_sections

WRITER = """
import sys
from helpers import *
with WorkspaceStore(sys.argv[1]) as store:
    run = store.begin_run("nightly", {}, [{"name": "corn"}])
    for line in sys.stdin:
        pipeline = begin_pipeline(store, run, line.strip())
        chain = save_chain(store, pipeline, preprocessings="SNV <b>" + line.strip())
        saved = predict(store, pipeline, chain, val_score=1 / len(line), model_name=line.strip())
        store.save_prediction_arrays(saved, np.arange(5.0), np.arange(5.0) + 0.1)
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        if line.startswith("placed"):
            store.list_runs()  # a read puts what waits in the tables
        print(line.strip(), flush=True)
"""


def told(writer: subprocess.Popen[str], name: str) -> None:
    """Let the writer store a pipeline of this name; wait until it has."""
    assert writer.stdin is not None
    writer.stdin.write(f"{name}\n")
    writer.stdin.flush()
    assert read_line(writer) == name


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = child(WRITER, tmp_path / "w")
    told(process, "placed first")
    yield process
    finish(process)


# -- beside a writer ---------------------------------------------------------------------------


def test_a_look_leaves_what_waits_to_its_writer(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    told(writer, "in the log")
    with WorkspaceStore.open_readonly(tmp_path / "w", trusted="none") as store:
        seen = asyncio.run(Look(store).seen())
        assert "placed first" in seen.content
        assert "in the log" not in seen.content
        assert (store.stats().pending, store.progress().waiting) == (1, 1)
        told(writer, "placed second")
        assert store.stats().pending == 0
        with store.undrained():
            assert "placed second" in content_of(store, with_charts=False)


def test_the_file_is_free_between_two_drawings(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    names = [f"placed {place}" for place in range(3)]
    with WorkspaceStore.open_readonly(tmp_path / "w", trusted="none") as store, store.undrained():
        # each of these needs the file for itself: it comes through while a page is half drawn, or never
        content_of(store, progress=lambda done, total: told(writer, names.pop()) if names else None)
    assert names == []


def test_looks_and_drawings_have_a_small_share_of_the_processors(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    async def look_on(look: Look, times: int) -> float:
        """The share of the processors that looks have which follow each other as fast as they may."""
        await look.seen()
        begun, spent = time.monotonic(), time.process_time()
        for place in range(times):
            told(writer, f"placed {place}")
            await asyncio.sleep(max(0.0, look._next_look - time.monotonic()))
            await look.seen()
        until = max(look._next_look, look._next_drawing)
        return (time.process_time() - spent) / ((until - begun) * (os.cpu_count() or 1))

    with WorkspaceStore.open_readonly(tmp_path / "w", trusted="none") as store:
        look = Look(store, interval=0.0, charts=False)
        assert asyncio.run(look_on(look, 2)) < 0.1  # 0.03, with room for what else this process does
        assert look._seen.number > 1


def test_reads_of_other_threads_are_drained_as_ever(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    begin_pipeline(store, run)
    with store.undrained():
        assert asyncio.run(asyncio.to_thread(store.list_pipelines)).height == 1


@pytest.mark.long
def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    with WorkspaceStore(tmp_path / "w") as store:
        run = store.begin_run("r", {}, [])
        pipeline = begin_pipeline(store, run)
        model = store.save_artifact(Trap(), "Ridge", "model", "joblib")
        chain = save_chain(store, pipeline, fold_artifacts={"fold_0": model})
        predict(store, pipeline, chain)
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    with WorkspaceStore.open_readonly(tmp_path / "w", trusted="none") as store:
        assert chain in asyncio.run(Look(store).seen()).content
        assert chain in chain_sections(store, chain, with_charts=True)
    assert not (tmp_path / "sprung").exists()
    joblib.load(next((tmp_path / "w" / "artifacts").glob("??/*")))
    assert (tmp_path / "sprung").exists()


# -- the server --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """A server of `n4a-fast ui` and its only address."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, place: str = "", method: str = "GET", token: bool = True, **headers: str) -> tuple[int, str, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 0, timeout=DEADLINE)
        path = parts.path if token else "/guess/"
        connection.request(method, path + place, headers=headers)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()


@contextmanager
def serving(place: Path) -> Iterator[Served]:
    """A server until the end of the block, where Ctrl-C ends it, whoever still listens."""
    with command_line("ui", place, "--json", "--interval", "0.1", "--no-charts") as process:
        try:
            yield Served(process, json.loads(read_line(process))["url"])
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("live") / "w"
    writer = child(WRITER, place)
    told(writer, "placed first")
    finish(writer)
    with serving(place) as server:
        yield server


def test_only_who_has_the_address_is_let_in(served: Served) -> None:
    status, page, headers = served.ask()
    assert (status, "nightly" in page, "&lt;b&gt;placed first" in page) == (200, True, True)
    for name, expected in (
        ("Content-Security-Policy", "default-src 'none'"),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
    ):
        assert expected in headers[name]
    assert "'unsafe-inline'" not in headers["Content-Security-Policy"].partition("script-src")[2]
    assert urlsplit(served.url).hostname == "127.0.0.1"
    host = urlsplit(served.url).netloc
    for status, question in (
        (403, {"token": False}),
        (400, {"Host": "evil.example"}),
        (403, {"Origin": "http://evil.example"}),
        (200, {"Origin": f"http://{host}"}),
        (405, {"method": "POST"}),
        (405, {"method": "DELETE", "place": "sections"}),
    ):
        assert served.ask(**question)[0] == status, question  # type: ignore[arg-type]


def test_a_chain_has_a_page_of_its_own(served: Served) -> None:
    _, page, _ = served.ask("sections")
    chain = page.partition('<code title="')[2].partition('"')[0]
    status, told_of, _ = served.ask(f"chain/{chain}")
    assert (status, chain in told_of, "scores by fold" in told_of) == (200, True, True)
    assert served.ask("chain/nothing-such")[0] == 404


def test_another_program_on_the_port_and_an_address_for_all_are_told(served: Served, tmp_path: Path) -> None:
    WorkspaceStore(tmp_path / "w").close()
    for option, code in ((("--port", str(urlsplit(served.url).port)), 1), (("--host", "0.0.0.0"), 2)):
        process = command_line("ui", tmp_path / "w", *option)
        errors = process.communicate(timeout=DEADLINE)[1]
        assert (process.returncode, len(errors.splitlines())) == (code, 1)


def test_an_empty_workspace_has_a_page(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path / "w").close()
    with WorkspaceStore.open_readonly(tmp_path / "w") as store:
        seen = asyncio.run(Look(store).seen())
    assert (seen.now, "No chain" in seen.content) == ("<p>no run yet</p>", True)


# -- in a browser ------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium (apt-get install chromium)")
def test_an_open_page_follows_a_running_sweep(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with serving(tmp_path / "w") as server, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 900})
        problems: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.add(request.url.removeprefix(server.url)))
        page.goto(server.url)
        page.locator("input.filter").fill("second")
        page.locator("table.board th button").nth(4).press("Enter")
        assert page.locator("table.board tbody tr:visible").count() == 0
        told(writer, "placed second")
        page.locator("table.board tbody tr:visible").wait_for(timeout=1000 * DEADLINE)  # without a reload
        assert "2 done" in page.locator("#now").inner_text()
        assert page.locator("input.filter").input_value() == "second"
        assert page.locator("table.board th").nth(4).get_attribute("aria-sort") == "ascending"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        if importlib.util.find_spec("axe_playwright_python"):
            from axe_playwright_python.sync_playwright import Axe

            found = Axe().run(page).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
        page.locator("table.board tbody tr:visible a").click()
        page.wait_for_url("**/chain/**")
        assert "placed second" in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert {place.partition("/")[0] for place in asked} == {"", "script.js", "events", "sections", "chain"}
        assert problems == []
        browser.close()
