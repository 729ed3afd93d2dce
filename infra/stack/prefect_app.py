"""Prefect's API as a long-lived process likes it: what is imported stays, and is not searched for garbage again."""

from __future__ import annotations

import gc

from fastapi import FastAPI

_COLLECT_AFTER = 20_000     # new objects; the default of 700 costs a round some percent, for memory nobody misses


def create_app() -> FastAPI:
    """Prefect's application, unchanged."""
    from prefect.server.api.server import create_app as prefects_own

    app = prefects_own()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    return app
