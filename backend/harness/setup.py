"""Sets the sandbox up in the background: files, repository, requirements, and then the agent itself."""

import asyncio
import os
import pwd
import secrets
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from backend.domain import trust
from backend.domain.agents import HARNESSES
from backend.domain.env_vars import NETWORK, PLATFORM_FACTS
from backend.domain.phases import DETAIL_LIMIT
from backend.domain.repositories import directory_name
from backend.harness import adapters, files, git, requirements
from backend.harness.activity import Activity
from backend.harness.adapters import Context, Launch, SetupError
from backend.harness.agent_server import AgentServer
from backend.harness.hook_channel import HookChannel, hook_command
from backend.harness.log import Log
from backend.harness.processes import Processes, become_subreaper, hide_from_others
from backend.harness.recording import NAME, Recording
from backend.harness.request import Request
from backend.harness.server import preload
from backend.harness.state import State
from backend.harness.terminal import Command, Terminal

_CERTIFICATE, _BUNDLE = "vault/ca.crt", "vault/ca-bundle.pem"
PLATFORM_ONLY = frozenset({"GIT_TOKEN", "HARNESS_AUTH_TOKEN"})


class Setup:
    """The one set-up of a sandbox, and the agent that came of it."""

    def __init__(self, root: Path, processes: Processes, state: State, log: Log) -> None:
        self.directory = root / "home"
        """Where the agent works: the clone, or its home."""
        self.program: str | None = None
        self.tui = True
        self.terminal: Terminal | None = None
        self.server: AgentServer | None = None
        """That of an API harness, once it can be asked."""
        self.recording: Recording | None = None
        self._session_id = ""
        self._root = root
        self._home = root / "home"
        self._processes = processes
        self._state = state
        self._log = log
        self.activity = Activity(state, log.mask)
        self._hooks: HookChannel | None = None
        self._starting: AgentServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def session_id(self) -> str:
        """What the session is called: first as we say, then as an API harness does."""
        return self.server.session_id if self.server is not None else self._session_id

    def begin(self, body: bytes) -> None:
        """Starts working on `body`. Raises ValueError when it is not a request."""
        request = Request.from_body(body)
        self.tui = HARNESSES[request.harness_id].tui
        self._session_id = "tty" if self.tui else f"ses_{secrets.token_hex(12)}"
        own_values = (value for name, value in request.env.items() if name not in PLATFORM_FACTS)
        self._log.hide(request.git_token, request.key, *own_values)
        self._state.update(setup="running")
        self._spawn(self._run(request))

    async def close(self) -> None:
        """Stops the set-up where it is, and gives up the terminal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._starting is not None:
            await self._starting.close()
        if self.terminal is not None:
            self.terminal.close()
        if self._hooks is not None:
            self._hooks.close()
        if self.recording is not None:
            await self.recording.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, request: Request) -> None:
        try:
            hide_from_others()
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
        if request.certificate and request.bundle:
            for name, text in ((_CERTIFICATE, request.certificate), (_BUNDLE, request.bundle)):
                files.write(self._root, PurePosixPath(name), text.encode(), files.PUBLIC)
        network = {name: value for name, value in os.environ.items() if name in NETWORK or name.startswith("UV_")}
        env = self._environment(request) | network | self._trusted(request)
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
            files.write_skill(self._root, request.harness_id, slug, content)
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
        context = Context(
            home=self._home,
            project=self.directory,
            model=request.model,
            prompt=request.prompt,
            initial_prompt=request.initial_prompt,
            base=request.base,
            key=request.key,
            env=env,
            hook=hook_command(self._root),
        )
        launch = adapters.plan(request.harness_id, context, request.command)
        for path, content in launch.files.items():
            files.write(self._root, PurePosixPath("home", path), content.encode(), files.PRIVATE)
        env = {**launch.env, **env}  # The user's own settings win.
        self.program = Path(launch.argv[0]).name
        try:
            if self.tui:
                if request.recording_bytes is not None:
                    self.recording = Recording(self._root / NAME, request.recording_bytes, self._log)
                await self._start_terminal(Command(launch.argv, env, self.directory, launch.first))
            else:
                await self._start_server(launch, env, request)
        except OSError as error:
            raise SetupError(f"cannot run {launch.argv[0]}: {error.strerror}. Reinstall or replace it.") from error

    async def _start_terminal(self, command: Command) -> None:
        try:
            self._hooks = HookChannel(self._root, self.activity.hook)
        except OSError as error:  # The terminal alone tells nearly as much.
            self._log.write(f"hooks cannot tell of the agent's activity: {error.strerror}")
        terminal = Terminal(command, self._processes, self._state, self.activity, self._log, self.recording)
        reason = await terminal.start()
        if reason is not None:
            raise SetupError(f"{self.program} {reason}\nRun it by hand in this sandbox's directory, or see its log.")
        self.terminal = terminal

    async def _start_server(self, launch: Launch, env: Mapping[str, str], request: Request) -> None:
        self._log.hide(launch.secret)
        server = self._starting = AgentServer(
            launch,
            env,
            directory=self.directory,
            seconds=request.port_seconds,
            title=request.title,
            session_id=self._session_id,
            processes=self._processes,
            state=self._state,
            activity=self.activity,
            log=self._log,
        )
        await server.start()
        self.server = server

    def _environment(self, request: Request) -> dict[str, str]:
        """A clean environment and the user's variables; nothing of the platform's."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = "agent"
        own = {name: value for name, value in request.env.items() if name not in PLATFORM_ONLY}
        own |= self._trusted(request)
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

    def _trusted(self, request: Request) -> dict[str, str]:
        """What tells programs of the authorities that came with the request."""
        if not (request.certificate and request.bundle):
            return {}
        return trust.environment(str(self._root / _CERTIFICATE), str(self._root / _BUNDLE))

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
