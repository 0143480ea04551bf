"""The report with a clock: its sections over HTTP, made anew while a sweep runs and somebody looks (extra `ui`).

A. One thread looks, and only while a page is open. It sees what is in the tables (`store.undrained`), so no writer
   drains for it, and lets the file go between its reads.
B. Between two looks passes a multiple of the processor time that one takes, and so between two drawings: both together
   have 3 % of the machine's processors at most, so a sweep that keeps all of them busy keeps 0.97 of its rate.
C. Nothing can be changed: GET alone, of a store that is opened for reading and trusts no artifact.
D. Whoever does not know the token is refused, and so is a name that is not this server's (DNS rebinding) and a request
   from a page of another one. The pages load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from secrets import compare_digest
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from n4a_fast.errors import NotFoundError, StoreError
from n4a_fast.report.cells import run_cell
from n4a_fast.report.charts import can_draw
from n4a_fast.report.html import text
from n4a_fast.report.page import content_of, document, title_of
from n4a_fast.report.sections import chain_sections
from n4a_fast.report.styles import LIVE_SCRIPT, SCRIPT

INTERVAL = 2.0  # seconds between looks
_DRAWING = 5  # intervals between drawings at least
_SHARE = 0.015  # of the processors' time: what looks may take, and what drawings may

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{_POLICY}; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CHANGES = """SELECT (SELECT count(*) FROM predictions), (SELECT count(*) FROM chains),
    (SELECT list((status, n) ORDER BY status) FROM (SELECT status, count(*) AS n FROM pipelines GROUP BY status)),
    (SELECT list((run_id, status) ORDER BY run_id) FROM runs)"""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a page shows: the run as it is, the sections and how often they have changed, and of when both are."""

    now: str = ""
    content: str = ""
    number: int = 0
    state: str = ""


class Look:
    """What is to be seen of a workspace, looked at again when it is asked for and the time has come."""

    def __init__(self, store: Any, interval: float = INTERVAL, charts: bool = True, **scope: Any) -> None:
        self.store, self.interval, self._scope = store, interval, scope
        self.charts = charts and can_draw()
        self._thread = ThreadPoolExecutor(1, "n4a-fast-ui")
        self._turn = asyncio.Lock()
        self._seen, self._changes = Seen(), None
        self._next_look = self._next_drawing = 0.0

    async def seen(self) -> Seen:
        """The newest look; one is taken for it when the last one is old enough."""
        async with self._turn:
            if time.monotonic() >= self._next_look:
                await self.ask(self._look)
            return self._seen

    async def ask(self, question: Callable[[], Result]) -> Result:
        """What a question to the store gives, asked by the one thread that may; what waits for the tables is left."""

        def asked() -> Result:
            with self.store.undrained():
                return question()

        return await asyncio.get_running_loop().run_in_executor(self._thread, asked)

    def _look(self) -> None:
        seen, began = self._seen, time.process_time()
        try:
            now, changes = self._now(), self.store.sql(_CHANGES).rows()
            self._next_look = self._later(self.interval, began)
            content, number = seen.content, seen.number
            if changes != self._changes and time.monotonic() >= self._next_drawing:
                content, number = content_of(self.store, **self._scope, with_charts=self.charts), number + 1
                self._next_drawing = self._later(_DRAWING * self.interval, began)
                self._changes = changes
            self._seen = Seen(now, content, number, f"as of {datetime.now():%H:%M:%S}; it refreshes by itself")
        except StoreError as error:  # busy for a moment, or moved: what was seen stays, and says of when it is
            state = seen.state.partition(";")[0] or "nothing seen yet"
            self._seen = Seen(seen.now, seen.content, seen.number, f"{state}; {error}")
            self._next_look = self._later(self.interval, began)

    def _later(self, least: float, began: float) -> float:
        """When to do again what has cost the processor time since `began`. The first time it also loads what is needed,
        which is not held against the second.
        """
        spent = time.process_time() - began if self._seen.number else 0.0
        return time.monotonic() + max(least, spent / (_SHARE * _processors()))

    def _now(self) -> str:
        try:
            return run_cell(self.store.progress(self._scope.get("run"))) or ""
        except NotFoundError:
            return "<p>no run yet</p>"


def _processors() -> int:
    """Processors that this process may use, where Python can tell, or else those of the machine."""
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1


def application(look: Look, token: str, hosts: list[str]) -> Starlette:
    """The pages below `/token/` for browsers that call this server by one of `hosts`."""
    store = look.store

    async def page(request: Request) -> Response:
        seen = await look.seen()
        body = (
            f'<p id="state" class="note" role="status">{text(seen.state)}</p><div id="now">{seen.now}</div>'
            f'<div id="content" data-number="{seen.number}">{seen.content}</div>'
        )
        script = '<script src="script.js"></script>'
        return HTMLResponse(document(title_of(store, "live"), body, _POLICY, script, "Read-only, served"))

    async def sections(request: Request) -> Response:
        return HTMLResponse((await look.seen()).content)

    async def events(request: Request) -> Response:
        return StreamingResponse(_news(look), media_type="text/event-stream")

    async def chain(request: Request) -> Response:
        name = request.path_params["chain_id"]
        try:
            content = await look.ask(lambda: chain_sections(store, name, look.charts))
        except StoreError as error:
            return PlainTextResponse(str(error), 404 if isinstance(error, NotFoundError) else 503)
        body = f'<p><a href="../">all chains</a></p>{content}'
        return HTMLResponse(document(f"chain {name[-8:]}", body, _POLICY, "", "Read-only, served"))

    async def script(request: Request) -> Response:
        return Response(SCRIPT + LIVE_SCRIPT, media_type="text/javascript")

    places = {"/": page, "/sections": sections, "/events": events, "/chain/{chain_id}": chain, "/script.js": script}
    routes = [Route(path, answer, methods=["GET"]) for path, answer in places.items()]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_Guard, token=token)]
    return Starlette(routes=[Mount("/{token}", routes=routes)], middleware=guards)


async def _news(look: Look) -> AsyncIterator[str]:
    """Server-sent events: one for each new look."""
    last = None
    while True:
        seen = await look.seen()
        if seen is not last:
            told = {"now": seen.now, "state": seen.state, "number": str(seen.number)}
            yield f"data: {json.dumps(told)}\n\n"
        last = seen
        await asyncio.sleep(look.interval)


class _Guard:
    """Lets in who knows the token and asks from no other site; what it answers stays in the page."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._lets_in(scope["path"], Headers(scope=scope)):
            return await self._app(scope, receive, sent)
        refused = PlainTextResponse("open the address that n4a-fast ui has printed, with its token", 403)
        await refused(scope, receive, sent)

    def _lets_in(self, path: str, headers: Headers) -> bool:
        origin = headers.get("origin")
        known = compare_digest(path.split("/")[1].encode(), self._token.encode())
        return known and (origin is None or urlsplit(origin).netloc == headers.get("host"))
