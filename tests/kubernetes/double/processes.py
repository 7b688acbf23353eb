"""Containers as real processes: the program of a pod's first container, its log, its readiness and its end."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.kubernetes.double.store import Object

Command = Callable[[Object, str, Path], Sequence[str]]
"""(pod, its address, its directory) -> the program and its arguments."""
_PROBE_SECONDS = 0.05
_SOURCES = Path(__file__).parents[3]


def harness(pod: Object, address: str, root: Path) -> Sequence[str]:
    """The harness on the pod's address, at the container's first port."""
    ports = pod["spec"]["containers"][0].get("ports") or [{"containerPort": 4096}]
    listen = f"{address}:{ports[0]['containerPort']}"
    return [sys.executable, "-m", "backend.harness", "--listen", listen, "--root", str(root)]


class Processes:
    """Starts the processes of pods, below a directory of its own that goes with `close`."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._folder = Path(tempfile.mkdtemp(prefix="double-pods-"))
        self._running: set[Running] = set()

    def start(self, pod: Object, address: str, ended: Callable[[int], None]) -> "Running":
        """Run the container; `ended` is called with its exit code (128 + n after signal n)."""
        root = self._folder / pod["metadata"]["uid"]
        for folder in ("home", "tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_SOURCES),
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "HOSTNAME": pod["metadata"]["name"],
            **self._environment(pod, address),
        }
        with (root / "log").open("ab") as log:
            process = subprocess.Popen(
                self._command(pod, address, root),
                env=environment,
                cwd=root / "home",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def over(code: int) -> None:
            self._running.discard(running)
            ended(code)

        running = Running(process, root, over)
        self._running.add(running)
        return running

    async def close(self) -> None:
        """End all processes and remove their files."""
        for running in tuple(self._running):
            running.kill()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @staticmethod
    def _environment(pod: Object, address: str) -> dict[str, str]:
        """What the pod sets; not from secrets and config maps, which sandboxes have none of."""
        meta, result = pod["metadata"], dict[str, str]()
        fields = {
            "metadata.name": meta["name"],
            "metadata.namespace": meta["namespace"],
            "metadata.uid": meta["uid"],
            "spec.nodeName": pod["spec"].get("nodeName", ""),
            "status.podIP": address,
        }
        for variable in pod["spec"]["containers"][0].get("env", ()):
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            result[variable["name"]] = fields[field] if field else variable.get("value", "")
        return result


class Running:
    """One process, from its start to its end."""

    def __init__(self, process: "subprocess.Popen[bytes]", root: Path, ended: Callable[[int], None]) -> None:
        self._process, self._root, self._ended = process, root, ended
        self.log = root / "log"
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(process.pid)
        self._loop.add_reader(self._descriptor, self._over)
        self._killer: asyncio.TimerHandle | None = None
        self._prober: asyncio.Task[None] | None = None

    def probe(self, probe: Object, address: str, ready: Callable[[], None]) -> None:
        """Call `ready` as soon as the readiness probe succeeds."""
        self._prober = self._loop.create_task(_probe(probe, address, ready))

    def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        self.signal(signal.SIGTERM)
        if self._killer is None:
            self._killer = self._loop.call_later(grace, self.signal, signal.SIGKILL)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it now, and wait for that."""
        self.signal(signal.SIGKILL)
        self._over()

    def _over(self) -> None:
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        code = self._process.wait()
        self.signal(signal.SIGKILL)  # What is left of its group.
        _kill_strays(self._root)
        for timer in (self._killer, self._prober):
            if timer is not None:
                timer.cancel()
        self._ended(code if code >= 0 else 128 - code)


def _kill_strays(root: Path) -> None:
    """Processes that left the group: as in a container, none outlives the first one. Known by their HOME."""
    mark = f"HOME={root / 'home'}".encode()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    os.kill(int(entry), signal.SIGKILL)


class LogFile:
    """What a process has written to its log, line by line with the time each was first seen."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[tuple[float, str]]:
        """The whole lines that came since."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            return [(time.time(), line) for line in whole.decode(errors="replace").splitlines(keepends=True)]
        return []


async def _probe(probe: Object, address: str, ready: Callable[[], None]) -> None:
    asked = probe.get("httpGet") or probe.get("tcpSocket") or {}
    path = asked.get("path") if "httpGet" in probe else None
    while not await _answers(address, int(asked.get("port", 4096)), path):
        await asyncio.sleep(_PROBE_SECONDS)
    ready()


async def _answers(address: str, port: int, path: str | None) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(address, port)
            with contextlib.closing(writer):
                if path is None:
                    return True
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline())[9:10] in (b"2", b"3")
    return False
