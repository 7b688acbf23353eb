"""Sets the sandbox up in the background: files, repository, requirements, and then the agent itself."""

import asyncio
import contextlib
import os
import pwd
import secrets
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from backend.domain.agents import HARNESSES
from backend.domain.env_vars import NETWORK, PLATFORM_FACTS
from backend.domain.phases import DETAIL_LIMIT
from backend.domain.repositories import directory_name
from backend.harness import adapters, files, git, requirements
from backend.harness.adapters import Context, Launch, SetupError
from backend.harness.log import Log
from backend.harness.processes import Child, Processes, become_subreaper, describe_exit, read_lines
from backend.harness.recording import NAME, Recording
from backend.harness.request import Request
from backend.harness.server import preload
from backend.harness.state import Agent, State
from backend.harness.terminal import Command, Terminal

PROBE_SECONDS = 1.0
"""Of one request: opencode never answers one that arrives too early."""
PROBE_EVERY_SECONDS = 0.1
LAST_LINES = 15


PLATFORM_ONLY = frozenset({"GIT_TOKEN", "HARNESS_AUTH_TOKEN"})


class Setup:
    """The one set-up of a sandbox, and the agent that came of it."""

    def __init__(self, root: Path, processes: Processes, state: State, log: Log) -> None:
        self.directory = root / "home"
        """Where the agent works: the clone, or its home."""
        self.program: str | None = None
        self.session_id = ""
        self.tui = True
        self.terminal: Terminal | None = None
        self.recording: Recording | None = None
        self._root = root
        self._home = root / "home"
        self._processes = processes
        self._state = state
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, body: bytes) -> None:
        """Starts working on `body`. Raises ValueError when it is not a request."""
        request = Request.from_body(body)
        self.tui = HARNESSES[request.harness_id].tui
        self.session_id = "tty" if self.tui else f"ses_{secrets.token_hex(12)}"
        own_values = (value for name, value in request.env.items() if name not in PLATFORM_FACTS)
        self._log.hide(request.git_token, request.key, *own_values)
        self._state.update(setup="running")
        self._spawn(self._run(request))

    async def close(self) -> None:
        """Stops the set-up where it is, and gives up the terminal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.terminal is not None:
            self.terminal.close()
        if self.recording is not None:
            await self.recording.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, request: Request) -> None:
        try:
            become_subreaper()
            await self._prepare(request)
            await self._start(request)
        except SetupError as error:
            failure = self._log.mask(str(error))
        except Exception as error:  # A defect of ours must end in a failed set-up, not in one that hangs.
            failure = self._log.mask(f"the set-up broke: {error!r}. Report it with the sandbox log.")
        else:
            self._log.write("set-up done")
            self._state.update(phase="harness_listening", phase_detail=None, setup="done")
            asyncio.get_running_loop().call_soon(preload)
            return
        self._log.write(f"set-up failed: {failure}")
        self._state.update(setup="failed", failure=failure, phase_detail=None)

    async def _prepare(self, request: Request) -> None:
        for name in ("home", "tmp"):
            (self._root / name).mkdir(exist_ok=True)
        await self._write_files(request)
        env = self._environment(request) | {
            name: value for name, value in os.environ.items() if name in NETWORK or name.startswith("UV_")
        }
        if request.repo_url:
            self._phase("cloning_repo", f"{request.repo_url} {request.branch or ''}".strip())
            self.directory = self._home / directory_name(request.repo_url)
            early = self.directory.exists()
            if early:
                self._clear(self.directory)
            await git.clone(
                self._processes,
                url=request.repo_url,
                branch=request.branch,
                token=request.git_token,
                directory=self.directory,
                env=env,
                on_line=self._said,
            )
            if early:
                await self._write_files(request)
        if request.requirements and request.requirements.strip():
            self._phase("installing_deps", None)
            await requirements.install(
                self._processes, request.requirements, home=self._home, env=env, on_line=self._said
            )

    async def _write_files(self, request: Request) -> None:
        for file in request.files:
            files.write_sandbox_file(self._root, file)
            self._log.write(f"file written: {file.sandbox_path}")
            await asyncio.sleep(0)  # Ten megabytes take a while: others get a turn in between.
        for slug, content in request.skills:
            files.write_skill(self._root, slug, content)
            self._log.write(f"skill written: {slug}")

    def _clear(self, directory: Path) -> None:
        """Makes room for the clone: git wants no directory there. Our own files in it are written again later."""
        for place, directories, names in os.walk(directory, topdown=False):
            for name in names:
                Path(place, name).unlink()
            for name in directories:
                Path(place, name).rmdir()
        directory.rmdir()

    async def _start(self, request: Request) -> None:
        env = self._environment(request)
        if request.requirements:
            paths = (str(self._home / requirements.TARGET), env.get("PYTHONPATH"))
            env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        port = None if self.tui else _free_port()
        if port is not None:
            env["PORT"] = str(port)
        context = Context(
            home=self._home,
            project=self.directory,
            model=request.model,
            prompt=request.prompt,
            initial_prompt=request.initial_prompt,
            base=request.base,
            key=request.key,
            env=env,
            port=port,
        )
        launch = adapters.plan(request.harness_id, context, request.command)
        for path, content in launch.files.items():
            files.write(self._root, PurePosixPath("home", path), content.encode(), files.PRIVATE)
        env = {**launch.env, **env}  # The user's own settings win.
        self.program = Path(launch.argv[0]).name
        try:
            if port is None:
                if request.recording_bytes is not None:
                    self.recording = Recording(self._root / NAME, request.recording_bytes, self._log)
                await self._start_terminal(Command(launch.argv, env, self.directory, launch.first))
            else:
                await self._start_server(launch, env, port, request.port_seconds)
        except OSError as error:
            raise SetupError(f"cannot run {launch.argv[0]}: {error.strerror}. Reinstall or replace it.") from error

    async def _start_terminal(self, command: Command) -> None:
        terminal = Terminal(command, self._processes, self._state, self._log, self.recording)
        reason = await terminal.start()
        if reason is not None:
            raise SetupError(f"{self.program} {reason}\nRun it by hand in this sandbox's directory, or see its log.")
        self.terminal = terminal

    async def _start_server(self, launch: Launch, env: Mapping[str, str], port: int, seconds: float) -> None:
        child = self._processes.start(launch.argv, env=env, cwd=self.directory, piped=True)
        self._log.write(f"agent started: {launch.argv[0]} (pid {child.pid}, port {port})")
        self._state.update(agent=Agent(running=True, pid=child.pid))
        lines: deque[str] = deque(maxlen=LAST_LINES)

        def said(line: str) -> None:
            lines.append(line)
            self._log.write(line)

        self._spawn(read_lines(child, said))
        self._spawn(self._note_exit(child))
        try:
            async with asyncio.timeout(seconds):
                while not await _answers(port, launch.probe):
                    if child.exited.done():
                        break
                    await asyncio.sleep(PROBE_EVERY_SECONDS)
                else:
                    return
            reason = f"ended with {describe_exit(child.exited.result())} before it listened on port {port}"
            await asyncio.sleep(PROBE_EVERY_SECONDS)  # Its last words are still in the pipe.
        except TimeoutError:
            child.kill()
            reason = f"did not answer on port {port} within {seconds:g} s"
        said_last = "".join(f"\n{line}" for line in lines)
        raise SetupError(f"{self.program} {reason}.{said_last}\nIt has to serve HTTP on 127.0.0.1:$PORT.")

    async def _note_exit(self, child: Child) -> None:
        code = await asyncio.shield(child.exited)
        self._log.write(f"agent ended: {describe_exit(code)}")
        self._state.update(agent=Agent(False, None, code if code >= 0 else None, -code if code < 0 else None))

    def _environment(self, request: Request) -> dict[str, str]:
        """A clean environment and the user's variables; nothing of the platform's."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = "agent"
        own = {name: value for name, value in request.env.items() if name not in PLATFORM_ONLY}
        return {
            "PATH": f"{self._home}/.local/bin:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "SHELL": next((shell for shell in ("/bin/bash", "/bin/sh") if os.access(shell, os.X_OK)), "/bin/sh"),
            "USER": user,
            "TMPDIR": str(self._root / "tmp"),
        } | own

    def _phase(self, phase: str, detail: str | None) -> None:
        self._log.write(f"phase {phase}" + (f": {detail}" if detail else ""))
        self._state.update(phase=phase, phase_detail=self._detail(detail))

    def _said(self, line: str) -> None:
        """A line of git or uv: kept in the log unless it is mere progress, and shown as the phase's detail."""
        if "%" not in line:
            self._log.write(line)
        self._state.update(phase_detail=self._detail(line))

    def _detail(self, text: str | None) -> str | None:
        return self._log.mask(text)[:DETAIL_LIMIT] if text else None


async def _answers(port: int, path: str) -> bool:
    """Whether an HTTP server on `port` answers `path`, with whatever status."""
    writer = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).startswith(b"HTTP/")
    except (OSError, TimeoutError, ValueError):
        return False
    finally:
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
