"""The doorkeeper as a program: HTTP and the WebSocket, behind nginx, on a Unix socket.

It checks every login itself, so whoever reaches the socket past nginx gains nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from fedround.errors import ContractError
from fedround.spoken import one_line
from infra.doorkeeper.behind import Behind
from infra.doorkeeper.calls import STREAM, find
from infra.doorkeeper.fetches import EVENT, LOG, Fetches, Tail, resource
from infra.doorkeeper.judging import MAX_BODY, Said, what_it_hears
from infra.doorkeeper.logins import of_header, whose
from infra.doorkeeper.settings import DoorkeeperSettings

log = logging.getLogger("fedround.doorkeeper")

CERTIFICATE = "x-fedround-certificate"
"""Whose certificate the connection has, as nginx says it; empty where certificates are not asked for."""
WATCH_S = 5.0
"""How often the record of the S3 server is read."""
_REFUSED = 1008
_ANSWER_HEADERS = ("content-type", "date")
_GONE = (WebSocketDisconnect, WebSocketException, OSError, KeyError, RuntimeError)
"""One end of a stream has ended. The KeyError is of a message that is no text."""
_STREAMS = ("/events/out", "/events/in", "/logs/out")


def create_app(settings: DoorkeeperSettings, folder: Path) -> Starlette:
    """The application. Logins are read from `folder` anew for every call."""
    logins = folder / "logins"
    behind = Behind(settings.api_behind, settings.auth_string(folder))

    async def call(request: Request) -> Response:
        site = whose(logins, of_header(request.headers.get("authorization", "")))
        if site is None or not _fits(request.headers.get(CERTIFICATE, ""), site, settings):
            return JSONResponse({"detail": "Unauthorized"}, 401, {"www-authenticate": 'Basic realm="fedround"'})
        path = request.scope["raw_path"].decode("ascii", "replace")
        found = find(site, request.method, path) if not request.url.query and site != settings.coordinator else None
        try:
            if found is None:
                raise ContractError(f"{request.method} {path[:200]} is nothing that a site's login may call")
            allowed, number = found
            body = await allowed.judge(Said(site, number, await _body(request), behind))
            answer = await behind.ask(request.method, path.removeprefix("/api"), body, dict(request.headers))
        except (ContractError, ClientDisconnect) as error:
            log.warning("site '%s': %s", site, one_line(str(error)))
            return JSONResponse({"detail": str(error)}, 403)
        except httpx.HTTPError as error:
            return JSONResponse({"detail": f"the Prefect API behind does not answer ({type(error).__name__})"}, 502)
        return Response(answer.content, answer.status_code, {
            name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers})

    async def stream(socket: WebSocket) -> None:
        path = socket.scope["path"].removeprefix("/api")
        await socket.accept(subprotocol="prefect")
        try:
            with anyio.fail_after(20):
                member = whose(logins, str((await _message(socket)).get("token") or ""))
            if member is None or not _fits(socket.headers.get(CERTIFICATE, ""), member, settings):
                raise ContractError("stream: no login, or not the one of the certificate")
            if member != settings.coordinator and path != STREAM:
                raise ContractError(f"stream {path} is nothing that a site's login may open")
            async with connect(f"{behind.api_url.replace('http', 'ws', 1)}{path}", subprotocols=[Subprotocol("prefect")],
                               proxy=None, max_size=None) as server:
                await server.send(json.dumps({"type": "auth", "token": behind.auth_string or None}))
                await socket.send_text(str(await server.recv()))
                if member != settings.coordinator:
                    await server.send(json.dumps(await _narrowed(member, socket, behind)))
                await _relay(socket, server, both=member == settings.coordinator)
        except (ContractError, TimeoutError) as error:
            log.warning("%s", one_line(str(error)))
            with suppress(RuntimeError):
                await socket.close(_REFUSED, "refused")
        except (*_GONE, httpx.HTTPError):
            with suppress(RuntimeError):
                await socket.close()

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if settings.models_per_day is not None:
                tasks.start_soon(_watch, Tail(folder / LOG), Fetches(settings.models_per_day), settings.coordinator, behind)
            yield
            tasks.cancel_scope.cancel()
        await behind.close()

    return Starlette(lifespan=life, routes=[
        *(WebSocketRoute(f"/api{path}", stream) for path in _STREAMS),
        Route("/{path:path}", call, methods=["GET", "POST", "PATCH", "PUT", "DELETE"])])


def serve(settings: DoorkeeperSettings, folder: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    path = folder / settings.socket
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    uvicorn.run(create_app(settings, folder), uds=str(path), access_log=False, log_level="warning", lifespan="on",
                timeout_graceful_shutdown=3, timeout_keep_alive=120, ws_max_size=MAX_BODY, loop="uvloop", http="httptools",
                date_header=False, server_header=False)


async def _watch(log_of_s3: Tail, fetches: Fetches, coordinator: str, behind: Behind) -> None:
    """Tell who fetches more models than expected, for as long as the doorkeeper runs, whatever goes wrong meanwhile."""
    federation = coordinator.removesuffix("-coordinator")
    while True:
        try:
            for line in log_of_s3.lines():
                if (found := fetches.add(line)) is not None:
                    identity, models = found
                    log.warning("the S3 credential %s has fetched %d models in a day", identity, models)
                    with suppress(httpx.HTTPError):
                        await behind.tell(EVENT, resource(federation, identity), {"models": models, "limit": fetches.limit})
        except Exception:       # a log that is being moved, or may not be read: the next look may find another
            log.exception("who fetches models cannot be seen now")
        await anyio.sleep(WATCH_S)


def _fits(certificate: str, member: str, settings: DoorkeeperSettings) -> bool:
    return not settings.certificates or certificate == member


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise ContractError(f"a body of more than {MAX_BODY} bytes")
    return body


async def _message(socket: WebSocket) -> dict[str, Any]:
    try:
        message = json.loads(await socket.receive_text())
    except (ValueError, KeyError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ContractError("stream: a message that is no JSON object")
    return message


async def _narrowed(site: str, socket: WebSocket, behind: Behind) -> dict[str, Any]:
    pool = await behind.pool_id(site)
    if pool is None:
        raise ContractError(f"stream: site '{site}' has no pool yet")
    return what_it_hears(site, pool, await _message(socket))


async def _relay(socket: WebSocket, server: ClientConnection, *, both: bool) -> None:
    """From the server to the member; from the member on only where it may say more. Ends when one of them does."""
    async with anyio.create_task_group() as group:
        async def out() -> None:
            with suppress(*_GONE):
                async for message in server:
                    await socket.send_text(message if isinstance(message, str) else message.decode())
            group.cancel_scope.cancel()

        async def into() -> None:
            with suppress(*_GONE):
                while True:
                    message = await socket.receive_text()
                    if both:
                        await server.send(message)
            group.cancel_scope.cancel()

        group.start_soon(out)
        group.start_soon(into)
    with suppress(RuntimeError):
        await socket.close()
