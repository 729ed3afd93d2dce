"""The Prefect API behind the doorkeeper, with the auth string that only the proxy has."""

from __future__ import annotations

import base64
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx

_VERSION = "x-prefect-api-version"
_TIMEOUT_S = 60.0


class Behind:
    """One server, asked by many."""

    def __init__(self, api_url: str, auth_string: str):
        self.api_url, self.auth_string = api_url.rstrip("/"), auth_string
        login = {"authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"} if auth_string else {}
        # None is kept: a call on a connection that the server closes just now would be lost.
        self._client = httpx.AsyncClient(headers=login, timeout=_TIMEOUT_S, trust_env=False,
                                         limits=httpx.Limits(max_keepalive_connections=0))

    async def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """One call, below /api. Of the caller's headers one is sent on, with which the server judges the client's version.

        What the body is, we say: a server that reads no JSON finds no filter in it, and answers with everybody's runs.
        """
        version = headers.get(_VERSION, "")
        kept = {_VERSION: version} if re.fullmatch("[0-9.]{1,20}", version) else {}
        return await self._client.request(method, f"{self.api_url}{path}", content=body,
                                          headers={"content-type": "application/json", **kept})

    async def has_run(self, site: str, run: str) -> bool:
        """Whether this flow run is in the site's pool."""
        return bool(await self._json("/flow_runs/count", {
            "flow_runs": {"id": {"any_": [run]}}, "work_pools": {"name": {"any_": [site]}}}))

    async def flow_id(self, name: str) -> str:
        """The id of the flow of this name. One that was deleted and made again has another."""
        return str((await self._json("/flows/", {"name": name}))["id"])

    async def pool_id(self, site: str) -> str | None:
        """The id of the site's pool; None if it has none. A pool that was deleted and made again has another."""
        found = await self._json("/work_pools/filter", {"work_pools": {"name": {"any_": [site]}}})
        return found[0]["id"] if found else None

    async def tell(self, event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        """An event, which automations act on."""
        said = {"occurred": datetime.now(UTC).isoformat(), "event": event, "resource": resource, "payload": payload,
                "id": str(uuid.uuid4())}
        (await self._client.post(f"{self.api_url}/events", json=[said])).raise_for_status()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _json(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self._client.post(f"{self.api_url}{path}", json=body)
        answer.raise_for_status()
        return answer.json()
