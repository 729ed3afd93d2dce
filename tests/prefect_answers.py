"""Answers of a Prefect API that has something else to say than what it was asked for."""

from __future__ import annotations

import httpx


def answered(status: int) -> httpx.HTTPStatusError:
    """What its client raises for this status."""
    answer = httpx.Response(status, request=httpx.Request("POST", "http://127.0.0.1:9/api/x"))
    return httpx.HTTPStatusError(str(status), request=answer.request, response=answer)


class Open:
    """A client's way in and out."""

    async def __aenter__(self) -> Open:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
