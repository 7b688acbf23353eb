"""The official client, configured: which server, TLS, credentials, and the connections to it."""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

from pydantic import SecretStr

from backend.sandboxes.kubernetes.errors import NotConfigured

if TYPE_CHECKING:  # the import takes half a second, so only those who use Kubernetes wait for it
    import aiohttp
    from kubernetes.aio.client import Configuration

T = TypeVar("T")

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A server that is gone without a word is noticed after a minute. Linux has the first name, macOS the second."""
_LOOPBACK: Final = re.compile(r"localhost|127\.[\d.]+|::1")
_files_lock = threading.Lock()
"""The official loader shares the files that it writes keys into among all its users; ours are removed at once."""


class ConnectionSettings(Protocol):
    """What is read of the settings (LAP REST 8.2)."""

    @property
    def kube_config_b64(self) -> SecretStr | None: ...
    @property
    def kubeconfig(self) -> str | None: ...
    @property
    def k8s_api_server(self) -> str | None: ...
    @property
    def k8s_skip_tls_verify(self) -> bool: ...
    @property
    def k8s_namespace(self) -> str: ...


class Connection:
    """To one server. `send` only on one event loop; everything else about it may happen in a thread."""

    def __init__(self, settings: ConnectionSettings) -> None:
        """Read configuration and credentials; asks nothing of the server.

        Slow, reads files and may run a program for a token: not on the loop. Raises NotConfigured.
        """
        from kubernetes.aio.client import ApiClient

        with _files_lock, tempfile.TemporaryDirectory() as directory:
            try:
                configuration = _configuration(settings, directory)
                self._identity = _identity(configuration)
                self._api = ApiClient(configuration)
            except (OSError, ValueError) as error:  # no certificate in a file, no key to it...
                raise NotConfigured(f"the kubeconfig cannot be used: {_short(error)}") from None
        self.host: str = urlsplit(configuration.host).netloc.rpartition("@")[2]
        self.generation = 0
        """Counts the credentials taken from others."""
        self._connector: aiohttp.TCPConnector | None = None
        self._closed = False
        self._answers: WeakSet[aiohttp.ClientResponse] = WeakSet()

    def take_credentials(self, fresh: "Connection") -> bool:
        """Use the token of a newer reading; False when server or certificates differ, so only `fresh` will do."""
        if fresh._identity != self._identity:
            return False
        self._api.configuration.api_key = fresh._api.configuration.api_key
        self.generation += 1
        return True

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: Any, timeout: "aiohttp.ClientTimeout"
    ) -> "aiohttp.ClientResponse":
        """The answer's beginning, whatever its status. Raises what aiohttp raises, RuntimeError when closed."""
        if self._closed:
            raise RuntimeError("closed")
        if self._connector is None:
            self._open()
        request = await self._api.param_serialize(
            method, path, header_params=dict(headers), body=body, auth_settings=["BearerToken"]
        )
        try:
            answer: aiohttp.ClientResponse = (await self._api.call_api(*request, _request_timeout=timeout)).response
        except Exception:
            if self._closed:  # under an answer that is awaited, aiohttp fails in various ways
                raise RuntimeError("closed") from None
            raise
        self._answers.add(answer)
        return answer

    async def close(self) -> None:
        """Cut everything under way."""
        import aiohttp

        self._closed = True
        for answer in list(self._answers):  # aiohttp would leave who reads one waiting for ever
            answer.content.set_exception(aiohttp.ClientConnectionError("closed"))
            answer.close()
        await self._api.close()  # type: ignore[no-untyped-call]
        if self._connector is not None:
            await self._connector.close()

    def _open(self) -> None:
        import aiohttp

        self._connector = aiohttp.TCPConnector(
            limit=0, ssl=self._api.rest_client.ssl_context, socket_factory=_kept_alive, keepalive_timeout=60
        )
        self._api.configuration.client_session_kwargs = {
            "connector": self._connector,
            "trust_env": not _LOOPBACK.fullmatch(self.host.rpartition(":")[0] or self.host),
        }


async def in_thread(function: Callable[[], T]) -> T:
    """The function's result, from a thread of its own that keeps nobody from ending the process."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = function()
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:  # the loop has ended meanwhile
            pass

    threading.Thread(target=run, name="kubernetes-configuration", daemon=True).start()
    return await result


def _configuration(settings: ConnectionSettings, directory: str) -> "Configuration":
    """The configuration from the first place that has one; key files go to `directory`."""
    from kubernetes import client as sync_client
    from kubernetes import config
    from kubernetes.aio.client import Configuration

    # The loader of the synchronous half: it is the complete one, and this is a thread.
    loaders: Any = config
    loaded = sync_client.Configuration()
    given: dict[str, Any] = {
        "client_configuration": loaded,
        "persist_config": False,
        "temp_file_path": directory,
    }
    try:
        if settings.kube_config_b64 is not None:
            file = Path(directory, "kubeconfig")
            file.write_bytes(base64.b64decode(settings.kube_config_b64.get_secret_value(), validate=True))
            loaders.load_kube_config(str(file), **given)
        elif settings.kubeconfig:
            loaders.load_kube_config(settings.kubeconfig, **given)
        elif os.environ.get("KUBERNETES_SERVICE_HOST") and _SERVICE_ACCOUNT.exists():
            loaders.load_incluster_config(loaded)
        else:
            loaders.load_kube_config("~/.kube/config", **given)
    except binascii.Error:
        raise NotConfigured("KUBE_CONFIG_B64 is not base64", "set it to a kubeconfig as `base64` prints it") from None
    except Exception as error:  # a file of any content makes the loader raise anything
        raise NotConfigured(
            f"no configuration to connect to Kubernetes ({_short(error)})", "set KUBECONFIG or KUBE_CONFIG_B64"
        ) from None
    configuration = Configuration(host=(settings.k8s_api_server or loaded.host).rstrip("/"))
    for name in ("api_key", "ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name"):
        setattr(configuration, name, getattr(loaded, name))
    if loaded.proxy and not loaded._proxy_from_env:
        configuration.proxy = loaded.proxy
    if settings.k8s_skip_tls_verify:
        configuration.verify_ssl = False
    # Clusters have made their own authorities for years, with certificates that the strict rules do not allow.
    configuration.disable_strict_ssl_verification = True
    return configuration


def _identity(configuration: "Configuration") -> tuple[object, ...]:
    """What makes another connection necessary when it changes."""
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return (
        configuration.host,
        configuration.verify_ssl,
        configuration.tls_server_name,
        configuration.proxy,
        *(hashlib.sha256(Path(file).read_bytes()).digest() if file else None for file in files),
    )


def _short(error: Exception) -> str:
    """The cause without what the official texts quote of the file, which may be a token."""
    text = str(error)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if type(error).__module__.startswith("yaml"):
        return "the kubeconfig is not YAML"
    if text.startswith(("Invalid kube-config", "Service ", "File does not exist")):
        return " ".join(re.split(r" in |\{", text)[0].split())
    return f"the kubeconfig has something unexpected, {type(error).__name__}"


def _kept_alive(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices when the other side has gone without a word."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
