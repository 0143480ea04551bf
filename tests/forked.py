"""Python processes at the price of a fork: an interpreter has imported the package, and each new process is its child.

A process of its own costs half a second of CPU time, nearly all of it for imports and for taking them down at the end;
a fork of one that has used nothing yet, neither DuckDB nor Polars, costs a tenth of that and is otherwise the same: it
has its own `__main__`, arguments, folder, environment, pipes and signals; its threads, handlers and streams end as an
interpreter's do.
What must be there before the interpreter is, such as a preloaded library, has an interpreter of its own to fork.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import IO, Any

# what an interpreter looks at when it starts, and no later
_OF_THE_START = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "OMP_", "OPENBLAS_", "POLARS_")
WHOLE_END = "N4A_WHOLE_END"  # of the environment: an interpreter takes down all that it has imported, too
_DESCRIPTORS = 4  # stdin, stdout, stderr, and where the end is told
_LENGTH = 8


def can_fork(environment: dict[str, str]) -> bool:
    """Whether processes are forked here; the rules of another system are those of each new interpreter."""
    return hasattr(socket, "send_fds") and "N4A_STRICT" not in environment


class Forked:
    """A process that was forked for us, with the part of `subprocess.Popen` that tests use; its pipes are text."""

    def __init__(self, pid: int, told: IO[str], stdin: IO[str], stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.returncode, self._told = pid, None, told
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def poll(self) -> int | None:
        """How it ended, None while it lives."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ends."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._told, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(self._told.readline()))
            self._told.close()
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """All that it still prints, once it has ended."""
        read = {"stdout": "", "stderr": ""}
        unread = [name for name in read if not getattr(self, name).closed]
        threads = [threading.Thread(target=self._read, args=(name, read), daemon=True) for name in unread]
        for thread in threads:
            thread.start()
        with contextlib.suppress(BrokenPipeError):
            if input:
                self.stdin.write(input)
            self.stdin.close()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        self.wait(timeout)
        return read["stdout"], read["stderr"]

    def _read(self, name: str, read: dict[str, str]) -> None:
        with getattr(self, name) as stream:
            read[name] = stream.read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def __del__(self) -> None:
        self._close()
        self._told.close()

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def forked(code: str, file: str, arguments: list[str], environment: dict[str, str]) -> Forked:
    """A process that runs `code` as if it stood in `file`, "-c" for none, with these arguments."""
    path = ["" if file == "-c" else str(Path(file).parent), str(Path(__file__).parent), *sys.path]
    request = {
        "code": code,
        "file": file,
        "arguments": arguments,
        "environment": {**environment, "PYTHONPATH": os.pathsep.join(path[1:])},
        "path": path,
        "folder": os.getcwd(),
    }
    (stdin, ours_in), (ours_out, stdout), (ours_err, stderr), (told, tell) = (os.pipe() for _ in range(_DESCRIPTORS))
    sys.audit("subprocess.Popen", sys.executable, ["-c", code], None, None)
    try:
        _nursery(environment).ask(request, [stdin, stdout, stderr, tell])
    finally:
        for descriptor in (stdin, stdout, stderr, tell):
            os.close(descriptor)
    answers = os.fdopen(told)
    streams = os.fdopen(ours_in, "w"), os.fdopen(ours_out), os.fdopen(ours_err)
    return Forked(int(answers.readline()), answers, *streams)


class _Nursery:
    """An interpreter that is forked; it ends with this process."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._socket, theirs = socket.socketpair()
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__, str(theirs.fileno())],
            env={**environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE,  # as its children have one
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self._end)

    @property
    def is_ours(self) -> bool:
        """Whether it was not our parent who started it."""
        return self._pid == os.getpid()

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        body = json.dumps(request).encode()
        with self._lock:
            socket.send_fds(self._socket, [len(body).to_bytes(_LENGTH, "little")], descriptors)
            self._socket.sendall(body)

    def _end(self) -> None:
        if self.is_ours:
            self._socket.close()
            self._process.communicate()


def _nursery(environment: dict[str, str]) -> _Nursery:
    """The one for processes with this environment."""
    start = frozenset((name, value) for name, value in environment.items() if name.startswith(_OF_THE_START))
    with _MAKING:
        if start not in _NURSERIES or not _NURSERIES[start].is_ours:
            _NURSERIES[start] = _Nursery(environment)
        return _NURSERIES[start]


_NURSERIES: dict[frozenset[tuple[str, str]], _Nursery] = {}
_MAKING = threading.Lock()


# -- the interpreter that is forked --------------------------------------------------------------


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request; comes back in the child, with what is to be done there."""
    noticed, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    living: dict[int, int] = {}  # where the end of each child is told
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(noticed, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == noticed:
                    os.read(noticed, 1000)
                    _tell_ends(living)
                    continue
                if (request := _received(requests)) is None:
                    os._exit(0)
                *streams, tell = request.pop("descriptors")
                with warnings.catch_warnings(action="ignore"):  # of threads: those of BLAS do nothing yet
                    child = os.fork()
                if not child:
                    signal.set_wakeup_fd(-1)
                    for place, descriptor in enumerate(streams):
                        os.dup2(descriptor, place)
                    for descriptor in (noticed, woken, tell, requests.detach(), *streams, *living.values()):
                        os.close(descriptor)
                    return request
                os.write(tell, f"{child}\n".encode())
                living[child] = tell
                for descriptor in streams:
                    os.close(descriptor)


def _received(requests: socket.socket) -> dict[str, Any] | None:
    head, ancillary, _, _ = requests.recvmsg(_LENGTH, socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize))
    if not head:
        return None
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    body, length = b"", int.from_bytes(head, "little")
    while len(body) < length:
        body += requests.recv(length - len(body))
    return {**json.loads(body), "descriptors": list(descriptors)}


def _tell_ends(living: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            tell = living.pop(ended[0])
            with contextlib.suppress(BrokenPipeError):
                os.write(tell, f"{ended[1]}\n".encode())
            os.close(tell)


def become(request: dict[str, Any]) -> tuple[types.CodeType, dict[str, Any]]:
    """In the child: what is to be run, and where."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["path"]
    sys.argv[:] = [request["file"], *request["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if request["file"] != "-c":
        main.__file__ = request["file"]
    sys.excepthook = lambda kind, error, trace: sys.__excepthook__(kind, error, trace and trace.tb_next)
    return compile(request["code"], "<string>" if request["file"] == "-c" else request["file"], "exec"), vars(main)


def _end_at_once() -> None:
    """The last that a child does which came to its end: what it has imported is not taken down, which takes as long as
    most of them run. Where the end of an interpreter is the point, `WHOLE_END` is in the environment.
    """
    if _ENDED and WHOLE_END not in os.environ:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed: the interpreter tells of it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_ENDED[0] & 255)


_ENDED: list[int] = []  # in the child: how it ends, once it does so of its own accord


if __name__ == "__main__":
    atexit.register(_end_at_once)  # before all others, so after them
    import helpers  # noqa: F401  # and with it the package, and what it stands on

    import n4a_fast.store  # noqa: F401

    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401  # as the first array that PyArrow makes of a list does

    gc.collect()
    gc.freeze()  # a child that ends does not take down what it never touched
    try:
        exec(*become(serve(socket.socket(fileno=int(sys.argv[1])))))
        _ENDED.append(0)
    except SystemExit as end:
        _ENDED.extend([end.code or 0] if isinstance(end.code, int | None) else ())
        raise
