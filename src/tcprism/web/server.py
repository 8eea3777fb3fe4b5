"""The server of the page: files, answers and news of changes, for who has the token."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

from tcprism.errors import MachineError, UsageError
from tcprism.events.optional import need
from tcprism.web.views import NotFound, Views

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
WRONG_TOKEN = "this needs the address that tcprism printed, with its token"
LISTENERS_MAX = 64  # pages that are told of changes at the same time
_LOOK = 0.25  # seconds between two looks for changes
_ALIVE = 15.0  # seconds after which a page is told that nothing has changed
_TO_END = 1  # seconds that answers under way get at the end


class Server:
    """Serves the page at an address, from its start to its close, in a thread of its own.

    `url` has the token. All sockets that it needs are open once it is made, and no thread runs
    until `start`. Raises MachineError, which names `option`, when it cannot listen there, and
    ExtraMissing.
    """

    def __init__(self, views: Views, host: str, port: int, option: str = "--listen") -> None:
        self._views = views
        self._files = static_files()
        self._uvicorn = need("uvicorn", "web")
        self._token = secrets.token_urlsafe(24)
        self._socket = _listening(host, port, option)
        self.port = self._socket.getsockname()[1]
        self._cookie = f"tcprism-{self.port}"  # cookies do not tell ports apart
        self._listeners = 0
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/?token={self._token}"
        config = self._uvicorn.Config(
            self._application(),
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            timeout_graceful_shutdown=_TO_END,
        )
        config.load()
        self._server = self._uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        trial = threading.Thread(target=self._try_out)
        trial.start()
        trial.join()
        self._thread = threading.Thread(target=self._run, daemon=True, name="web")

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more. Only after `start`."""
        self._server.should_exit = True
        self._thread.join(2 * _TO_END)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        finally:
            self._loop.close()

    def _try_out(self) -> None:
        """Do once what is done later: what is imported for it may be out of reach then (serve)."""
        self._loop.run_until_complete(self._in_thread(self._try_answers))

    def _try_answers(self) -> None:
        for name in self._views.names:
            with suppress(UsageError):  # some need a number
                self._written(name, {})

    def _application(self) -> Any:
        applications = need("starlette.applications", "web")
        routing = need("starlette.routing", "web")
        self._responses = need("starlette.responses", "web")
        self._in_thread = need("starlette.concurrency", "web").run_in_threadpool
        route = routing.Route
        return applications.Starlette(
            routes=[
                route("/", self._page),
                route("/static/{name}", self._file),
                route("/api/changes", self._changes),
                route("/api/{name}", self._answer),
            ]
        )

    def _admits(self, request: Any) -> bool:
        given = request.cookies.get(self._cookie, "")
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _refused(self) -> Any:
        return self._responses.PlainTextResponse(f"tcprism: {WRONG_TOKEN}\n", 403, HEADERS)

    async def _page(self, request: Any) -> Any:
        """Give out the page; who comes with the token gets a cookie, and an address without."""
        token = request.query_params.get("token")
        if token is not None:
            if not secrets.compare_digest(token.encode(), self._token.encode()):
                return self._refused()
            response = self._responses.RedirectResponse("/", 303, HEADERS)
            response.set_cookie(
                self._cookie, self._token, httponly=True, samesite="strict", path="/"
            )
            return response
        return self._static("index.html") if self._admits(request) else self._refused()

    async def _file(self, request: Any) -> Any:
        if not self._admits(request):
            return self._refused()
        return self._static(request.path_params["name"])

    def _static(self, name: str) -> Any:
        content = self._files.get(name)
        if content is None:
            return self._responses.PlainTextResponse("there is no such file\n", 404, HEADERS)
        media_type = TYPES[name[name.rindex(".") :]]
        return self._responses.Response(content, 200, HEADERS, media_type)

    async def _answer(self, request: Any) -> Any:
        if not self._admits(request):
            return self._refused()
        name = request.path_params["name"]
        if name not in self._views.names:
            return self._error("there is no such view", 404)
        try:
            body = await self._in_thread(self._written, name, dict(request.query_params))
        except NotFound as error:
            return self._error(str(error), 404)
        except (UsageError, MachineError) as error:
            return self._error(str(error), 400)
        except ImportError as error:  # without privileges, Python's own files may be out of reach
            return self._error(f"a library cannot be read any more: {error}", 400)
        return self._responses.Response(body, 200, HEADERS, "application/json")

    def _written(self, name: str, query: dict[str, str]) -> bytes:
        return to_json(self._views.answer(name, query))

    def _error(self, text: str, status: int) -> Any:
        body = to_json({"error": text})
        return self._responses.Response(body, status, HEADERS, "application/json")

    async def _changes(self, request: Any) -> Any:
        if not self._admits(request):
            return self._refused()
        if self._listeners >= LISTENERS_MAX:
            return self._error("too many pages are open", 503)
        return self._responses.StreamingResponse(
            self._news(request), 200, HEADERS, "text/event-stream"
        )

    async def _news(self, request: Any) -> AsyncIterator[bytes]:
        """Yield the number of changes whenever it has grown (Server-Sent Events)."""
        store, told, silent = self._views.store, -1, 0.0
        self._listeners += 1
        try:
            while not self._server.should_exit and not await request.is_disconnected():
                if store.change != told or silent >= _ALIVE:
                    told, silent = store.change, 0.0
                    yield b"data: %d\n\n" % told
                await asyncio.sleep(_LOOK)
                silent += _LOOK
        finally:
            self._listeners -= 1


def to_json(answer: dict[str, Any]) -> bytes:
    """Return an answer as JSON, in ASCII."""
    return json.dumps(answer, separators=(",", ":"), allow_nan=False).encode("ascii")


def static_files() -> dict[str, bytes]:
    """Return the files of the page by name."""
    folder = files("tcprism.web").joinpath("static")
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name[file.name.rfind(".") :] in TYPES
    }


def _listening(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        why = str(error.strerror).partition(" (while")[0]  # Python adds the address once more
        raise MachineError(
            f"{option}: cannot listen at {shown}:{port} ({why}): choose another address or port"
        ) from error
