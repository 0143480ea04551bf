"""`ui`: the report over a running sweep, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import OneWorkspace, WorkspaceOption, command, one, say, stop
from n4a_fast.cli.drawing import ChartsOption, DatasetOption, MetricOption, RunOption
from n4a_fast.cli.printing import JsonOption, print_document, write
from n4a_fast.cli.watching import Interval

if TYPE_CHECKING:
    import socket

_LOCAL = ("127.0.0.1", "localhost")
_PATIENCE = 0.5  # seconds that a look waits for the file


@command("ui", "ui my_sweep --port 8700")
def ui(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    run: RunOption = None,
    dataset: DatasetOption = None,
    metric: MetricOption = None,
    host: Annotated[str, typer.Option(help="The address or name to listen at, as browsers will call it.")] = _LOCAL[0],
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 0,
    interval: Interval = 2.0,
    charts: ChartsOption = True,
    as_json: JsonOption = False,
) -> None:
    """The report as a page that follows a running sweep.

    Read-only, for browsers on this machine.
    """
    from n4a_fast.store import WorkspaceStore

    place = one(workspace, option)
    import secrets

    try:
        import uvicorn

        from n4a_fast.report.live import Look, application
    except ModuleNotFoundError as error:
        stop(f"the page needs the package {error.name}; install it: pip install 'n4a_fast[ui]'", 2)
    with WorkspaceStore.open_readonly(place, lock_timeout=_PATIENCE, trusted="none") as store:
        listening, token = _listening(host, port), secrets.token_urlsafe(24)
        chosen = None if run is None else store.find(run, "run")
        look = Look(store, interval, charts, run=chosen, dataset=dataset, metric=metric)
        app = application(look, token, [*_LOCAL, host])
        url = f"http://{host}:{listening.getsockname()[1]}/{token}/"
        _tell(place, url, as_json)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    if host in ("", "0.0.0.0", "::", "*"):
        stop(f"--host {host!r} is no address that a browser can call; give the one that it will", 2)
    import socket

    try:
        return socket.create_server((host, port))
    except OSError as error:
        stop(f"cannot listen at {host}:{port}: {error.strerror or error}")


def _tell(place: Path, url: str, as_json: bool) -> None:
    import sys

    content: dict[str, Any] = {"url": url}
    if as_json:
        print_document("ui", place, content)
    else:
        write(f"{place}: {url}")
        say("Ctrl-C ends it; from another machine: ssh -L PORT:127.0.0.1:PORT, and --port PORT here")
    sys.stdout.flush()
