"""The set-up of a sandbox with real git repositories, files, requirements and programs."""

import base64
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from backend.harness.adapters import Context, SetupError, plan
from tests.harness.conftest import RunningHarness, descendants
from tests.harness.githost import GitHost

SHOW_ENVIRONMENT = "bash --norc -c 'cat /proc/$$/environ > $HOME/environ; sleep 99'"
# The least that is asked of the server of an API harness.
SERVER = """import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer("text/event-stream", b"")
    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer("application/json", json.dumps({"id": "ses_" + wanted["title"]}).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SECRET = "ghp_secretTokenOfTheTest"


def file(path: str, content: bytes) -> dict[str, Any]:
    return {"name": "f", "sandbox_path": path, "content": base64.b64encode(content).decode(), "size": len(content)}


@pytest.fixture
async def git_host(repository: Path) -> AsyncIterator[GitHost]:
    """An HTTP server with the repository, readable with the SECRET only."""
    host = GitHost(repository.parent, SECRET)
    await host.start()
    yield host
    await host.close()


async def test_files_and_skills_are_written_before_the_agent_starts(harness: RunningHarness) -> None:
    state = await harness.ready(
        files=[file("~/notes/a b.md", b"\x00\xff"), file("/etc/tool.conf", b"conf"), file("~/empty", b"")],
        skills=[{"slug": "review-code", "content": "# Ä skill"}],
    )
    assert state["setup"] == "done", state
    assert (harness.home / "notes/a b.md").read_bytes() == b"\x00\xff"
    assert (harness.home / "notes/a b.md").stat().st_mode & 0o777 == 0o600
    assert (harness.home / "empty").read_bytes() == b""
    assert (harness.root / "rootfs/etc/tool.conf").read_bytes() == b"conf"
    skill = harness.home / ".claude/skills/review-code/SKILL.md"
    assert skill.read_text() == "# Ä skill"
    assert skill.stat().st_mode & 0o777 == 0o644
    assert (harness.home / ".codex/skills/review-code/SKILL.md").read_text() == "# Ä skill"
    assert [report["phase"] for report in state["phases"]] == ["harness_listening"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~/../x", "'..'".strip("'")),
        ("/../../x", ".."),
        ("x", 'must start with "/" or "~/"'),
        ("~/", "must name a file"),
        ("~/a\nb", "control characters"),
        ("~/" + "x" * 300, "at most"),
        ("~/.claude.json/x", None),
    ],
)
async def test_a_file_cannot_leave_the_sandbox(harness: RunningHarness, path: str, reason: str | None) -> None:
    files = [file("~/.claude.json", b"{}"), file(path, b"x")]
    failure = await harness.failure(files=files)
    assert (reason or "cannot write") in failure
    assert failure.endswith(".")
    assert not [entry for entry in harness.root.parent.iterdir() if entry.name == "x"]


async def test_a_symbolic_link_on_the_way_is_not_followed(start: Callable[..., Any], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, path in (("link", "~/link/x"), ("final", "~/final")):
        harness: RunningHarness = await start()
        harness.home.mkdir()
        (harness.home / name).symlink_to(outside if name == "link" else outside / "x")
        assert "cannot write home/" in await harness.failure(files=[file(path, b"x")])
    assert list(outside.iterdir()) == []


async def test_content_that_is_not_base64_is_a_failure(harness: RunningHarness) -> None:
    assert "not base64" in await harness.failure(files=[{"name": "x", "sandbox_path": "~/x", "content": "%%%"}])


@pytest.mark.parametrize("slug", ["../../evil", "Upper", "", "-x", "a" * 61, "a/b", "a\n"])
async def test_a_bad_slug_is_a_failure(harness: RunningHarness, slug: str) -> None:
    assert "Rename the skill." in await harness.failure(skills=[{"slug": slug, "content": "x"}])
    assert not (harness.home / ".claude").exists() or not list((harness.home / ".claude").rglob("SKILL.md"))


async def test_a_clone_is_shallow_and_is_where_the_agent_works(harness: RunningHarness, repository: Path) -> None:
    state = await harness.ready(repo_url=str(repository), branch="other")
    assert state["setup"] == "done", state
    assert [report["phase"] for report in state["phases"]] == ["cloning_repo", "harness_listening"]
    clone = harness.home / "widgets"
    assert (clone / "README").read_text() == "two\n"
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "other"
    assert git(clone, "rev-list", "--count", "HEAD") == "1"
    tty = await harness.attach()
    await tty.type("pwd; echo $HOME\r")
    await tty.until(f"{clone}\r\n")
    health = (await harness.http.get("/healthz")).json()
    assert health == {"ok": True, "cmd": "bash", "repo": str(clone), "auth_required": True}


async def test_files_for_the_clone_end_up_in_it(harness: RunningHarness, repository: Path) -> None:
    state = await harness.ready(repo_url=f"file://{repository}", files=[file("~/widgets/sub/.env", b"A=1")])
    assert state["setup"] == "done", state
    assert (harness.home / "widgets/sub/.env").read_text() == "A=1"
    assert (harness.home / "widgets/README").exists()


async def test_a_private_clone_leaves_no_trace_of_the_token(harness: RunningHarness, git_host: GitHost) -> None:
    state = await harness.ready(
        repo_url=f"{git_host.url}/widgets", branch="main", git_token=SECRET, command=SHOW_ENVIRONMENT
    )
    assert state["setup"] == "done", state
    assert (harness.home / "widgets/README").exists()
    assert git_host.authorized > 0
    for directory, _, names in os.walk(harness.root):
        for name in (name for name in names if Path(directory, name).is_file()):
            assert SECRET.encode() not in Path(directory, name).read_bytes(), name
    for pid in (harness.process.pid, *descendants(harness.process.pid)):
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert all(SECRET not in line for line in git_host.command_lines)
    assert git_host.command_lines


async def test_the_agents_own_github_token_is_used_when_there_is_no_other(
    harness: RunningHarness, git_host: GitHost
) -> None:
    state = await harness.ready(repo_url=f"{git_host.url}/widgets", env={"GITHUB_TOKEN": SECRET})
    assert state["setup"] == "done", state


@pytest.mark.parametrize("token", [None, "ghp_wrongTokenOfTheTest"])
async def test_a_clone_without_access_says_so(harness: RunningHarness, git_host: GitHost, token: str | None) -> None:
    failure = await harness.failure(repo_url=f"{git_host.url}/widgets", git_token=token)
    assert failure.startswith("git clone failed: ")
    assert "Check the credentials" in failure
    assert "ghp_" not in failure + harness.log()


async def test_a_missing_branch_is_named(harness: RunningHarness, repository: Path) -> None:
    failure = await harness.failure(repo_url=str(repository), branch="nowhere")
    assert "Remote branch nowhere not found" in failure
    assert "Check the agent's branch" in failure


@pytest.mark.parametrize("url", ["/nonexistent/repo", "{host}/nothing"])
async def test_a_missing_repository_is_named(harness: RunningHarness, git_host: GitHost, url: str) -> None:
    failure = await harness.failure(repo_url=url.format(host=git_host.url), git_token=SECRET)
    assert "Check the repository's address" in failure


async def test_an_unreachable_host_is_named(harness: RunningHarness) -> None:
    failure = await harness.failure(repo_url="http://127.0.0.1:1/x/y")
    assert "The host could not be reached" in failure


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"repo_url": "--upload-pack=touch /tmp/x"}, "repo_url must not start with '-'"),
        ({"repo_url": "ext::sh -c touch"}, "repo_url must"),
        ({"repo_url": "/x", "branch": "--orphan"}, "branch must not start with '-'"),
    ],
)
async def test_arguments_that_git_would_misread_never_reach_it(
    harness: RunningHarness, body: dict[str, str], reason: str
) -> None:
    assert reason in await harness.failure(**body)


async def test_a_second_attempt_without_depth_for_a_server_that_has_none(
    harness: RunningHarness, git_host: GitHost, repository: Path
) -> None:
    git(repository, "update-server-info")
    state = await harness.ready(repo_url=f"{git_host.url}/dumb/widgets/.git", git_token=SECRET)
    assert state["setup"] == "done", state
    assert git(harness.home / "repo", "rev-list", "--count", "HEAD") == "2"


async def test_requirements_are_installed_for_the_agent(harness: RunningHarness, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    state = await harness.ready(
        requirements=f"# own packages\n{wheel}\n",
        env={"PYTHONPATH": "/elsewhere"},
        command=f"{sys.executable} -c 'import lap_sample, os; print(lap_sample.ANSWER, *os.environ.items()); input()'",
    )
    assert state["setup"] == "done", state
    assert [report["phase"] for report in state["phases"]] == ["installing_deps", "harness_listening"]
    tty = await harness.attach()
    shown = await tty.until("/elsewhere")
    assert "forty-two" in shown
    assert "/.local/lib/python-agent:/elsewhere" in shown.replace("\r\n", "")


async def test_requirements_that_cannot_be_installed_say_why(harness: RunningHarness) -> None:
    failure = await harness.failure(requirements="/nonexistent/thing-1.0-py3-none-any.whl")
    assert failure.startswith("uv pip install failed: ")
    assert "/nonexistent/thing-1.0-py3-none-any.whl" in failure
    assert failure.endswith("Correct the agent's requirements.")


async def test_the_agents_environment_is_clean(start: Callable[..., Any]) -> None:
    harness: RunningHarness = await start(env={"MASTER_KEY": "platform-secret", "DATABASE_URL": "x"})
    env = {"MY_VAR": "ä value", "GIT_TOKEN": "never-shown", "PATH": f"/opt/mine:{os.environ['PATH']}"}
    state = await harness.ready(env=env, command=SHOW_ENVIRONMENT)
    assert state["setup"] == "done", state
    await harness.until(lambda _: (harness.home / "environ").exists())
    pairs = (harness.home / "environ").read_bytes().decode().rstrip("\0").split("\0")
    found = dict(pair.split("=", 1) for pair in pairs)
    for name in ("_", "PWD", "SHLVL", "OLDPWD"):
        found.pop(name, None)
    assert found.pop("MY_VAR") == "ä value"
    assert found.pop("PATH").startswith("/opt/mine:")
    assert found.pop("HOME") == str(harness.home)
    assert found.pop("TMPDIR") == str(harness.root / "tmp")
    assert (found.pop("TERM"), found.pop("COLORTERM"), found.pop("LANG")) == ("xterm-256color", "truecolor", "C.UTF-8")
    assert set(found) == {"SHELL", "USER"}


async def test_authorities_are_written_and_named_to_every_program(start: Callable[..., Any]) -> None:
    harness: RunningHarness = await start(env={"SSL_CERT_FILE": "/nowhere"})
    authorities = {"certificate": "ours", "bundle": "theirs and ours"}
    state = await harness.ready(authorities=authorities, command=SHOW_ENVIRONMENT)
    assert state["setup"] == "done", state
    await harness.until(lambda _: (harness.home / "environ").exists())
    pairs = (harness.home / "environ").read_bytes().decode().rstrip("\0").split("\0")
    found = dict(pair.split("=", 1) for pair in pairs)
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"):
        assert Path(found[name]).read_text() == "theirs and ours"
    assert Path(found["NODE_EXTRA_CA_CERTS"]).read_text() == "ours"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-agent --flag", "'no-such-agent' of LAP_HARNESS_COMMAND_CODEX was not found"),
        ("no-such-agent; exit 127", "exit code 127: "),
        ("bash -c 'echo broken config; exit 3'", "ended at once with exit code 3: broken config"),
        ("true", "ended at once with exit code 0"),
        ("bash -c 'kill -9 $$'", "exit code 137"),
        ("'", "is not a shell command"),
        ("   ", "is blank"),
    ],
)
async def test_a_program_that_does_not_start_fails_the_set_up(
    harness: RunningHarness, command: str, reason: str
) -> None:
    assert reason in await harness.failure(command=command)


@pytest.mark.parametrize("harness_id", ["codex", "claude-code", "opencode"])
async def test_a_missing_program_is_named_with_how_to_install_it(
    start: Callable[..., Any], tmp_path: Path, harness_id: str
) -> None:
    package = tmp_path / "packages/claude_agent_sdk"  # Stands in for the real one, which brings Claude Code.
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    harness: RunningHarness = await start(env={"PYTHONPATH": str(package.parent)})
    failure = await harness.failure(harness_id=harness_id, command=None, env={"PATH": str(tmp_path)})
    assert "was not found. Install it with `npm install -g" in failure
    assert f"LAP_HARNESS_COMMAND_{harness_id.upper().replace('-', '_')}" in failure


async def test_a_shell_command_is_run_by_a_shell(harness: RunningHarness) -> None:
    state = await harness.ready(command='X=1; echo "x is $X" && exec bash --norc')
    assert state["setup"] == "done"
    tty = await harness.attach()
    await tty.until("x is 1")


async def test_an_api_harness_is_ready_when_it_answers_on_its_port(harness: RunningHarness, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    session_id = await harness.session(
        harness_id="claude-agent-sdk", command=f"{sys.executable} -u {tmp_path}/server.py", title="Mine"
    )
    assert session_id.startswith("ses_")
    state = await harness.until(lambda state: state["setup"] != "running")
    assert (state["setup"], state["phase"]) == ("done", "harness_listening"), state
    assert state["session"] == "ses_Mine"
    assert state["agent"]["running"]
    os.kill(state["agent"]["pid"], 9)
    ended = await harness.until(lambda state: not state["agent"]["running"])
    assert ended["agent"]["signal"] == 9


async def test_an_api_harness_that_gives_no_session_fails(harness: RunningHarness) -> None:
    command = f"{sys.executable} -u -c 'import http.server, os; http.server.test(port=int(os.environ[\"PORT\"]))'"
    failure = await harness.failure(harness_id="claude-agent-sdk", command=command)
    assert "gave no session: POST /session was answered 501" in failure
    assert "Serving HTTP on" in failure


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("sh -c 'echo starting up; sleep 99'", "did not answer on port"),
        ("sh -c 'echo no key; exit 4'", "ended with exit code 4 before it listened"),
    ],
)
async def test_an_api_harness_that_never_answers_fails_with_its_last_lines(
    harness: RunningHarness, command: str, reason: str
) -> None:
    failure = await harness.failure(harness_id="opencode", command=command, port_timeout=0.5)
    assert reason in failure
    assert ("starting up" in failure) or ("no key" in failure)
    await harness.until(lambda state: not state["agent"]["running"])


def test_a_missing_python_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    context = Context(tmp_path, tmp_path, model=None, prompt=None, base=None, key=None, env={})
    with pytest.raises(SetupError, match="pip install claude-agent-sdk") as missing:
        plan("claude-agent-sdk", context, None)
    assert "LAP_HARNESS_COMMAND_CLAUDE_AGENT_SDK" in str(missing.value)


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def make_wheel(directory: Path) -> Path:
    """A minimal wheel with the module `lap_sample`."""
    path = directory / "lap_sample-1.0-py3-none-any.whl"
    info = "lap_sample-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("lap_sample.py", "ANSWER = 'forty-two'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lap-sample\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
