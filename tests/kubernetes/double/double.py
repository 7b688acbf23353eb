"""One double on a thread of its own: the server, the cluster behind it, a kubeconfig, and ways to look and steer."""

import asyncio
import base64
import copy
import json
import shutil
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from tests.kubernetes.double import certificates, objects
from tests.kubernetes.double.api import Api
from tests.kubernetes.double.cluster import Cluster
from tests.kubernetes.double.faults import Faults
from tests.kubernetes.double.logs import Logs
from tests.kubernetes.double.processes import Command, harness
from tests.kubernetes.double.resources import ALL, Catalog
from tests.kubernetes.double.rules import Rules
from tests.kubernetes.double.server import Server
from tests.kubernetes.double.store import Change, Object

Result = TypeVar("Result")
CALL_SECONDS = 30.0


class Double:
    """A cluster for tests; use it as a context manager, `with` or `async with`.

    `mode`: "simulated" (pods without processes) or "processes". `nodes`: how many, or their names. `versions` of
    agent-sandbox that are served; without v1beta1 its controller behaves as the older one did. `claims`: whether its
    extensions are served. `port`: 0 for any.
    """

    def __init__(
        self,
        *,
        mode: Literal["simulated", "processes"] = "simulated",
        nodes: int | Iterable[str] = 1,
        cpu: str = "8",
        memory: str = "32Gi",
        pods: int = 110,
        namespace: str = "default",
        versions: tuple[str, ...] = ("v1beta1", "v1alpha1"),
        claims: bool = False,
        tls: bool = False,
        port: int = 0,
        user: str = "dev",
        bookmark_seconds: float = 60.0,
        command: Command = harness,
    ) -> None:
        names = [f"node{number + 1}" for number in range(nodes)] if isinstance(nodes, int) else list(nodes)
        self._options: dict[str, Any] = {"mode": mode, "nodes": names, "versions": versions, "claims": claims}
        self._options |= {"cpu": cpu, "memory": memory, "pods": pods, "command": command, "tls": tls}
        self._options |= {"user": user, "bookmark_seconds": bookmark_seconds}
        self.namespace, self.token, self.port = namespace, "double-token", port
        self.rules, self.faults = Rules(), Faults(self)
        self._folder = Path(tempfile.mkdtemp(prefix="double-"))
        self.kubeconfig = self._folder / "kubeconfig"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="kubernetes-double", daemon=True)

    # Life

    def start(self) -> Self:
        self._thread.start()
        try:
            self.run(self._setup())
            self._write_kubeconfig()
        except BaseException:
            self._stop()
            raise
        return self

    def close(self) -> None:
        """End everything that runs for it, and remove its files. Raises what went wrong within the double itself."""
        try:
            self.run(self._teardown())
        finally:
            self._stop()
        if self.server.broken:
            raise RuntimeError("the double has failed") from self.server.broken[0]

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def url(self) -> str:
        return f"{'https' if self._options['tls'] else 'http'}://127.0.0.1:{self.port}"

    # Looking

    def get(self, resource: str, name: str) -> Object | None:
        """A copy of an object of our namespace (or of none), or None."""
        return self.call(lambda: copy.deepcopy(self.cluster.store.get(resource, self._place(resource), name)))

    def list(self, resource: str) -> "list[Object]":
        """Copies of all there are in our namespace (or of none)."""
        place = self._place(resource)
        return self.call(lambda: [copy.deepcopy(entry.obj) for entry in self.cluster.store.entries(resource, place)])

    async def until(
        self, resource: str, name: str, holds: Callable[[Object | None], bool], timeout: float = 30.0
    ) -> Object | None:
        """The object as soon as `holds` is true of it (None: it is not there). Raises TimeoutError."""
        work = self._until(resource, name, holds, timeout)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def wait(self, resource: str, name: str, holds: Callable[[Object | None], bool]) -> Object | None:
        """`until` for who is not asynchronous."""
        return self.run(self._until(resource, name, holds, CALL_SECONDS))

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Requests so far by (verb, resource); opened watches have the verb "watch"."""
        found: Counter[tuple[str, str]] = Counter()
        for (verb, resource, _), count in self.asked.items():
            found[verb, resource] += count
        return found

    @property
    def asked(self) -> Counter[tuple[str, str, str]]:
        """The same by (verb, resource, namespace); "" is at the scope of the cluster."""
        return self.call(lambda: Counter(self.server.asked))

    def open_watches(self) -> Counter[str]:
        """Watches that are open now, by resource."""
        return self.call(lambda: Counter({name: len(held) for name, held in self.server.watchers.items() if held}))

    def open_logs(self) -> int:
        """Logs that are being followed now."""
        return self.call(lambda: len(self.server.followers))

    # Steering

    def script(self, prefix: str, outcome: str) -> None:
        """Pods whose name starts with `prefix` come to this outcome (outcomes.OUTCOMES); the latest rule counts."""
        self.call(self.cluster.kubelet.scripts.insert, 0, (prefix, outcome))

    def turn(self, name: str, outcome: str) -> None:
        """Bring a pod that is there to another outcome: from "running" to "oom", from "creating" to "running"."""
        self.call(lambda: self.cluster.turn(self.namespace, name, outcome))

    def write_log(self, name: str, text: str) -> None:
        """Let a simulated container write this."""
        self.call(lambda: self.cluster.kubelet.write_log(self._entry("pods", name), text))

    def age_log(self, name: str, lines: Sequence[str]) -> None:
        """As if a simulated container had written just these, one each second until now."""
        self.call(lambda: self.cluster.kubelet.age_log(self._entry("pods", name), lines))

    def put(self, resource: str, obj: Object) -> None:
        """Create an object past all checks, in our namespace if it names none: an event, a pod of somebody else's."""

        def create() -> None:
            meta = {"namespace": self.namespace, **obj["metadata"]} if ALL[resource].namespaced else obj["metadata"]
            made = {**obj, "metadata": meta}
            if resource == "pods":
                made = objects.new_pod(self.cluster.store, made)
            self.cluster.store.create(resource, made)

        self.call(create)

    def edit(self, resource: str, name: str, **fields: Any) -> None:
        """Put other top-level fields into an object, as any controller might."""
        self.call(lambda: self.cluster.store.patch(resource, self._entry(resource, name), **fields))

    # Within

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run a function on the double's loop."""

        async def run() -> Result:
            return function(*args)

        return self.run(run())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * CALL_SECONDS)

    async def listen(self) -> None:
        self.port = await self.server.listen(self.port, self._tls)

    def _entry(self, resource: str, name: str) -> Object:
        return self.cluster.store.entry(resource, self._place(resource), name).obj

    def _place(self, resource: str) -> str:
        return self.namespace if ALL[resource].namespaced else ""

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and not isinstance(error, OSError):  # Of a connection that was cut.
            self.server.broken.append(error)
        loop.default_exception_handler(context)

    async def _setup(self) -> None:
        options = self._options
        self._tls: ssl.SSLContext | None = certificates.context(self._folder) if options["tls"] else None
        command = options["command"] if options["mode"] == "processes" else None
        legacy = "v1beta1" not in options["versions"]
        self.cluster = Cluster([self.namespace], legacy=legacy, claims=options["claims"], command=command)
        for name in options["nodes"]:
            self.cluster.add_node(name, cpu=options["cpu"], memory=options["memory"], pods=options["pods"])
        network = self.cluster.network
        catalog = Catalog(options["versions"], claims=options["claims"])
        api = Api(self.cluster.store, catalog, network.service_address, network.node_port)
        who: dict[str, Any] = {"user": options["user"], "token": self.token}
        self.server = Server(
            api,
            self.rules,
            Logs(self.cluster.store, self.cluster.kubelet),
            bookmark_seconds=options["bookmark_seconds"],
            **who,
        )
        self._loop.set_exception_handler(self._failed)
        await self.listen()

    async def _teardown(self) -> None:
        await self.server.close()
        await self.cluster.close()

    async def _until(
        self, resource: str, name: str, holds: Callable[[Object | None], bool], timeout: float
    ) -> Object | None:
        store, key = self.cluster.store, (self._place(resource), name)
        done: asyncio.Future[Object | None] = self._loop.create_future()

        def look() -> None:
            obj = store.get(resource, *key)
            try:
                if not done.done() and holds(obj):
                    done.set_result(copy.deepcopy(obj))
            except Exception as error:  # It is the test's, not ours.
                done.set_exception(error)

        def changed(change: Change) -> None:
            if change.entry.resource.plural == resource and change.entry.meta["name"] == name:
                look()

        store.listeners.append(changed)
        try:
            look()
            return await asyncio.wait_for(done, timeout)
        finally:
            store.listeners.remove(changed)

    def _write_kubeconfig(self) -> None:
        cluster: dict[str, Any] = {"server": self.url}
        if self._tls is not None:
            authority = (self._folder / certificates.AUTHORITY).read_bytes()
            cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        context = {"cluster": "double", "user": self._options["user"], "namespace": self.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": cluster}],
            "users": [{"name": self._options["user"], "user": {"token": self.token}}],
            "contexts": [{"name": "double", "context": context}],
        }
        self.kubeconfig.write_text(json.dumps(config))
