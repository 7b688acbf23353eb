"""The DaemonSet that pulls the harness's image to every node, where the operator has one (LAP REST 5.1)."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from backend.sandboxes.kubernetes.client import KubernetesClient, Resource
from backend.sandboxes.kubernetes.errors import ApiError, NotFound

DAEMONSETS: Final = Resource("apps", "v1", "daemonsets")
NAME: Final = "harness-image-prepull"
FRESH_SECONDS: Final = 60.0


class ImageCache:
    """Asks at most once in FRESH_SECONDS, whoever wants to know; what it cannot have it does not try more often."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._told: dict[str, Any] = {}
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()

    async def state(self) -> dict[str, Any]:
        """The part `image_cache` of the diagnose answer; with `error` when it cannot be known."""
        async with self._asking:
            if time.monotonic() >= self._fresh_until:
                self._told = await self._ask()
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            return dict(self._told)

    async def _ask(self) -> dict[str, Any]:
        try:
            found = await self._client.get(DAEMONSETS, NAME)
        except NotFound:
            return {"daemonset_exists": False, "notes": f"no DaemonSet {NAME} pulls images ahead: nodes do when asked"}
        except ApiError as error:
            return {"daemonset_exists": False, "error": str(error)}
        status = found.get("status")
        counts: Mapping[str, Any] = status if isinstance(status, Mapping) else {}
        return {
            "daemonset_exists": True,
            "daemonset_ready_count": counts.get("numberReady", 0),
            "daemonset_desired_count": counts.get("desiredNumberScheduled", 0),
        }
