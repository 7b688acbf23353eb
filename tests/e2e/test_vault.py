"""What an agent's sandbox holds instead of credentials, and what its owner sees of its traffic."""

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import API, Platform
from tests.vault.servers import Server
from tests.waiting import until

pytestmark = pytest.mark.e2e

KEY = "sk-gateway-real-0123456789"
TOKEN = "ghp_agents-real-0123456789"
AGENT = """
while [ ! -e "$HOME/stop" ]; do
  for job in "$HOME"/*.job; do
    [ -e "$job" ] || continue
    mv "$job" "$job.taken"; sh "$job.taken" > "$job.new" 2>&1; mv "$job.new" "$job.out"
  done
  sleep 0.05
done
"""


@pytest.fixture
async def gateway() -> AsyncIterator[Server]:
    made = Server()
    async with made.running():
        yield made


@pytest.fixture
async def platform(tmp_path: Path, gateway: Server) -> AsyncIterator[Platform]:
    script = tmp_path / "agent.sh"
    script.write_text(AGENT)
    made = Platform(
        tmp_path / "data",
        {
            "LAP_HARNESS_COMMAND_CLAUDE_CODE": f"sh {script}",
            "LITELLM_API_BASE": f"http://127.0.0.1:{gateway.port}/v1",
            "LITELLM_API_KEY": KEY,
            "LAP_VAULT": "on",
        },
    )
    await made.start()
    yield made
    await made.close()


class Inside:
    """Runs commands as the agent of a session."""

    def __init__(self, platform: Platform, session: dict[str, Any]) -> None:
        self._home = platform.sandbox(session) / "home"
        self._count = 0

    async def run(self, command: str) -> str:
        self._count += 1
        job = self._home / f"{self._count}.job"
        (self._home / "new").write_text(command)
        (self._home / "new").rename(job)
        out = self._home / f"{self._count}.job.out"
        await until(out.exists, f"{command!r} has run")
        return out.read_text()


async def seen(platform: Platform, session: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    response = await platform.http.get(f"{API}/sessions/{session['id']}/interceptions", params=query)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()
    return found


async def test_an_agent_never_holds_a_credential(platform: Platform, gateway: Server) -> None:
    agent = await platform.create_agent(
        env_vars={"GITHUB_TOKEN": TOKEN, "GREETING": "hello", "LOG_LEVEL": "debug"}, env_var_plain=["GREETING"]
    )
    session = await platform.ready(agent, env_vars={"OWN": "of-this-session"})
    inside = Inside(platform, session)
    env = dict(line.split("=", 1) for line in (await inside.run("env")).splitlines() if "=" in line)
    assert env["GITHUB_TOKEN"].startswith("stub_github_token_")
    assert env["ANTHROPIC_AUTH_TOKEN"].startswith("stub_litellm_api_key_")
    assert (env["GREETING"], env["LOG_LEVEL"], env["OWN"]) == ("hello", "debug", "of-this-session")
    assert not {KEY, TOKEN} & set(env.values())
    assert (
        Path(env["SSL_CERT_FILE"]).read_text().rstrip().endswith(Path(env["NODE_EXTRA_CA_CERTS"]).read_text().rstrip())
    )

    # The gateway is reached with a real key, and repeats the stub.
    answer = await inside.run('curl -sS -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL/v1/models')
    assert dict(gateway.requests[0]["headers"])["authorization"] == f"Bearer {KEY}"
    assert KEY not in answer and env["ANTHROPIC_AUTH_TOKEN"] in answer

    # Anything else on this machine is refused, the platform above all.
    answer = await inside.run(f"curl -sS --noproxy '' {platform.url}/healthz; curl -sS http://169.254.169.254/")
    assert answer.count("always refused") == 2

    await until(lambda: _two_kinds(platform, session), "both are told")
    (swap,) = await seen(platform, session, kind="swapped")
    assert swap["stubs_swapped"] == [env["ANTHROPIC_AUTH_TOKEN"]]
    fingerprint = swap["real_value_fingerprint"][0]
    assert (fingerprint["credential"], fingerprint["real_tail"]) == ("LITELLM_API_KEY", KEY[-2:])
    blocks = await seen(platform, session, kind="blocked")
    assert {(each["host"], each["blocked"]) for each in blocks} == {("127.0.0.1", True), ("169.254.169.254", True)}
    names = (await platform.http.get(f"{API}/sessions/{session['id']}/vault-keys")).json()
    assert names == ["GITHUB_TOKEN", "LITELLM_API_KEY"]
    events = await platform.events(types="egress.swapped,egress.blocked", session_id=session["id"])
    assert {event["type"] for event in events} == {"egress.swapped", "egress.blocked"}
    everything = json.dumps(await platform.events()) + platform.log()
    assert KEY not in everything and TOKEN not in everything


def vaults(platform: Platform) -> list[int]:
    """Pids of the platform's vault processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"backend.vault" in words and str(platform.data_dir / "vault").encode() in words:
                found.append(int(path.parent.name))
    return found


async def _two_kinds(platform: Platform, session: dict[str, Any]) -> bool:
    return len({each["host"] for each in await seen(platform, session)}) >= 2


async def test_rules_change_while_a_session_runs_and_outlive_both_processes(
    platform: Platform, gateway: Server
) -> None:
    agent = await platform.create_agent(env_vars={"GITHUB_TOKEN": TOKEN}, allow_out=["allowed.invalid"])
    session = await platform.ready(agent)
    inside = Inside(platform, session)
    assert "allow_out: no entry matches" in await inside.run("curl -sS http://other.invalid/")
    changed = await platform.http.patch(f"{API}/agents/{agent['id']}", json={"allow_out": ["*.invalid"]})
    assert changed.status_code == 200

    async def allowed() -> bool:
        return "cannot be resolved" in await inside.run("curl -sS http://other.invalid/")

    await until(allowed, "the new rule holds")

    ask = 'curl -sS --retry 30 --retry-all-errors --retry-delay 1 -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" '
    ask += "$ANTHROPIC_BASE_URL/v1/models"
    (pid,) = vaults(platform)
    os.kill(pid, signal.SIGKILL)
    assert "stub_litellm_api_key" in await inside.run(ask)

    await platform.end(signal.SIGKILL)
    assert "stub_litellm_api_key" in await inside.run(ask)  # the vault needs no platform
    await platform.start()
    assert "stub_litellm_api_key" in await inside.run(ask)
    assert all(dict(got["headers"])["authorization"] == f"Bearer {KEY}" for got in gateway.requests)


async def test_hosts_of_credentials_are_checked(platform: Platform) -> None:
    for fields, message in (
        ({"env_var_hosts": {"NOPE": ["a.test"]}}, "env_var_hosts: 'NOPE' is not a defined env var"),
        ({"env_var_plain": ["NOPE"]}, "env_var_plain: 'NOPE' is not a defined env var"),
        (
            {"env_vars": {"K": "v"}, "env_var_hosts": {"K": ["b.test"]}, "allow_out": ["a.test"]},
            "env_var_hosts: host 'b.test' for 'K' is not in the agent's allowed hosts",
        ),
        ({"env_vars": {"K": "v"}, "env_var_hosts": {"K": ["b test"]}}, "must be a domain, *.wildcard, IP, or CIDR"),
    ):
        response = await platform.http.post(f"{API}/agents", json={"model": "m", **fields})
        assert response.status_code == 400
        assert message in [issue["message"] for issue in response.json()["issues"]]
    agent = await platform.create_agent(
        env_vars={"K": "v", "L": "w"}, env_var_hosts={"K": ["a.test"]}, env_var_plain=["L"]
    )
    assert (agent["env_var_hosts"], agent["env_var_plain"]) == ({"K": ["a.test"]}, ["L"])
    changed = await platform.http.patch(f"{API}/agents/{agent['id']}", json={"env_vars": {"L": "********"}})
    assert (changed.json()["env_var_hosts"], changed.json()["env_var_plain"]) == ({}, ["L"])
