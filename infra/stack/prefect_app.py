"""Prefect's API, adapted to a long-lived process on one machine.

What it does for other clients, and for databases far away, is left out. Imported modules stay, and the garbage collector does
not search them again.
"""

from __future__ import annotations

import gc
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.middleware import Middleware
from starlette.routing import Mount

_COLLECT_AFTER = 20_000     # new objects; the default of 700 costs a round some percent, for memory nobody misses


def create_app() -> FastAPI:
    """Prefect's application, with less around it."""
    from prefect.server.api.server import create_app as prefects_own
    from prefect.server.database import configurations

    configurations.create_async_engine = _engine
    app = prefects_own()
    for route in app.routes:
        if isinstance(route, Mount) and route.path == "/api" and isinstance(route.app, FastAPI):
            route.app.user_middleware = [middleware for middleware in route.app.user_middleware if not _is_idle(middleware)]
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    return app


def _engine(*arguments: Any, **named: Any) -> AsyncEngine:
    """A connection through a socket to a database that starts and stops with us need not be tested before each use."""
    return create_async_engine(*arguments, **{**named, "pool_pre_ping": False})


def _is_idle(middleware: Middleware) -> bool:
    """Whether a middleware has no use here: compression on loopback, or a header that only older clients omit."""
    dispatch = middleware.kwargs.get("dispatch")
    return middleware.cls is GZipMiddleware or getattr(dispatch, "__name__", "") == "default_content_type"
