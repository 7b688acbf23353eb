"""Keeps a copy of all objects of one kind: list, then watch, for as long as it runs, whatever the API server does."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from backend.domain import clock
from backend.sandboxes.kubernetes.client import (
    ALL,
    ApiError,
    Forbidden,
    Gone,
    Json,
    KubernetesClient,
    NotFound,
    Resource,
    Senseless,
    Throttled,
    Unauthorized,
    Unreachable,
)

_log = logging.getLogger(__name__)

_PROOF_SECONDS: Final = 1.0
"""A watch that lasted this long works, also when it brought nothing."""
_AT_ONCE: Final = 16
"""Changes that are taken in and told in one turn of the loop, about 5 ms: hundreds come together in a busy cluster."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the server is asked, in seconds."""

    first: float = 0.5
    """Upper limit of the first wait after a failure; each further one may be twice as long..."""
    most: float = 30.0
    """...up to this. All are random from 0 on (full jitter)."""
    denied: float = 60.0
    """Between tries where only a person can help: access rules, something not installed."""
    watch: tuple[int, int] = (240, 300)
    """How long a watch is to last, at random so that those of all kinds and replicas do not come back at once."""


OnChange = Callable[[str, Json | None, Json | None], None]
"""Called with the key, the object before and the object now; None where there was, or is, none."""


def key_of(item: Json, *, everywhere: bool) -> str:
    """`name`, with `namespace/` before it where objects of all namespaces are kept."""
    metadata = item["metadata"]
    name: str = metadata["name"]
    return f"{metadata['namespace']}/{name}" if everywhere and metadata.get("namespace") else name


def trimmed(item: Json) -> Json:
    """The object without what nobody reads and what is often most of it: who has set which field."""
    metadata = item["metadata"]
    metadata.pop("managedFields", None)
    if annotations := metadata.get("annotations"):
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return item


class Informer:
    """A copy of the objects of one kind that follows the server's. Never raises; stays as it was while it is away.

    Everything happens on the event loop: `items` is changed, and then the callback called, event by event; a list
    replaces `items` at once and then calls back for what differs.
    """

    def __init__(
        self,
        client: KubernetesClient,
        resource: Resource | Callable[[], Awaitable[Resource]],
        on_change: OnChange,
        *,
        namespace: str | None = None,
        trim: Callable[[Json], Json] = trimmed,
        hold: bool = True,
        on_back: Callable[[], None] = lambda: None,
        pace: Pace | None = None,
    ) -> None:
        """`resource` may be a question to the server, asked before the first list and when the kind is not found.

        `namespace` None is the client's. `trim` makes of a server's object what is kept; it leaves name, namespace
        and resourceVersion in its `metadata`. Without `hold` nothing is kept: every object that is listed or changes
        is called back as new, and `items` stays empty. `on_back` is called when an `error` is over.
        """
        self._client = client
        self._ask = resource if callable(resource) else None
        self._resource = None if callable(resource) else resource
        self._on_change = on_change
        self._namespace = namespace
        self._trim = trim
        self._hold = hold
        self._on_back = on_back
        self._pace = pace or Pace()
        self._items: dict[str, Json] = {}
        self._listed = asyncio.Event()
        self._version = ""
        """Where the watch goes on from, "" when a list is needed."""
        self._opened: float | None = None
        """When the server accepted the watch (time.monotonic)."""
        self._progress = False
        """It has brought something."""
        self._failures = 0
        self._retry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: ApiError | None = None
        """Why we do not hear from the server now."""
        self.since: str | None = None
        """When that began (domain.clock)."""

    @property
    def items(self) -> Mapping[str, Json]:
        """By name; by `namespace/name` when all namespaces are watched."""
        return self._items

    @property
    def synced(self) -> bool:
        """There was a whole list at least once."""
        return self._listed.is_set()

    @property
    def problem(self) -> str | None:
        """`error` as text."""
        return None if self.error is None else str(self.error)

    async def wait_synced(self) -> None:
        """Return once `synced`."""
        await self._listed.wait()

    def start(self) -> None:
        """Begin; call once, on the loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; its connection is cut. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def retry(self) -> None:
        """Try again now if the server could not be reached: somebody else has just heard from it."""
        if isinstance(self.error, Unreachable):
            self._retry.set()

    async def _run(self) -> None:
        while True:
            self._opened = None
            self._progress = False
            error: ApiError | None = None
            try:
                await self._follow()
            except ApiError as raised:
                error = raised
            except Exception as raised:
                _log.exception("watching %s failed", self._title)
                error = Senseless(f"watching {self._title} failed: {type(raised).__name__}")
            if self._worked():
                # Ended or cut as every watch is some day; whether that is a problem the next attempt will show.
                self._failures = 0
                if isinstance(error, Gone):
                    self._version = ""
                await self._pause(random.uniform(0, self._pace.first))
            else:
                self._failures += 1
                self._prepare_retry(error)
                await self._pause(self._delay(error))

    async def _follow(self) -> None:
        """List when needed, then watch until the server ends it."""
        if self._ask is not None and self._resource is None:
            self._resource = await self._ask()
        assert self._resource is not None
        if not self._version:
            await self._list(self._resource)
        seconds = random.randint(*self._pace.watch)
        watch = self._client.watch(self._resource, self._version, namespace=self._namespace, timeout_seconds=seconds)
        async with watch as events:
            self._opened = time.monotonic()
            self._well()
            count = 0
            async for event in events:
                self._apply(event)
                count += 1
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _worked(self) -> bool:
        """The watch that has just ended was a good one."""
        lasted = 0.0 if self._opened is None else time.monotonic() - self._opened
        return self._progress or lasted >= _PROOF_SECONDS

    def _prepare_retry(self, error: ApiError | None) -> None:
        if error is None:
            return
        if not isinstance(error, Gone):
            if self.error is None:
                self.since = clock.now()
                _log.warning("%s: %s", self._title, error)
            self.error = error
        if isinstance(error, NotFound) and self._ask is not None:
            self._resource = None
        passing = isinstance(error, Unreachable | Unauthorized | Forbidden | Throttled)
        if not passing or isinstance(error, Senseless):
            self._version = ""  # the server may not be able to go on from there, say after a restore from a backup

    def _delay(self, error: ApiError | None) -> float:
        if isinstance(error, Forbidden | NotFound):
            return self._pace.denied
        wait = random.uniform(0, min(self._pace.most, self._pace.first * 2 ** min(self._failures - 1, 16)))
        return wait + ((error.retry_after if error else None) or 0)

    async def _pause(self, delay: float) -> None:
        self._retry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._retry.wait()

    def _well(self) -> None:
        if self.error is not None:
            _log.info("%s: seen again", self._title)
            self.error = self.since = None
            self._on_back()

    async def _list(self, resource: Resource) -> None:
        items, version = await self._client.list_with_version(resource, namespace=self._namespace, trim=self._trim)
        if not version:
            raise Senseless(f"the list of {self._title} has no resourceVersion")
        before, now = self._items, {self._key_of(item): item for item in items}
        if self._hold:
            self._items = now
        self._version = version
        self._listed.set()
        gone = [(key, before[key], None) for key in before.keys() - now.keys()]
        new = [(key, before.get(key), item) for key, item in now.items() if before.get(key) != item]
        for count, change in enumerate((*gone, *new), 1):
            self._tell(*change)
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _apply(self, event: Json) -> None:
        item = event["object"]
        metadata = item.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not version or not isinstance(version, str):
            raise Senseless(f"an event about {self._title} has no resourceVersion")
        kind = event.get("type")
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            item = self._trim(item)
            key = self._key_of(item)
            old = self._items.get(key)
            if kind == "DELETED":
                self._items.pop(key, None)
                self._tell(key, old or item, None)
            else:
                if self._hold:
                    self._items[key] = item
                self._tell(key, old, item)
        self._version = version
        self._progress = True

    def _tell(self, key: str, old: Json | None, now: Json | None) -> None:
        try:
            self._on_change(key, old, now)
        except Exception:
            _log.exception("what follows from a change of %s %s failed", self._title, key)

    def _key_of(self, item: Json) -> str:
        return key_of(item, everywhere=self._namespace == ALL)

    @property
    def _title(self) -> str:
        return self._resource.title if self._resource else "the cluster's kinds"
