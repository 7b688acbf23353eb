"""A session on a cluster whose agent holds stubs, and calls out through a vault of the cluster."""

import json
import shlex
from pathlib import Path

import pytest

from tests.e2e.programs import API, Platform
from tests.kubernetes.double import Double
from tests.vault.served import HOST, KEY, Served
from tests.vault.servers import Server, Trust
from tests.waiting import until

pytestmark = pytest.mark.e2e

TOKEN = "ghp_agents-real-0123456789"


async def test_a_stub_is_swapped_on_its_way_out_of_a_pod(tmp_path: Path) -> None:
    trust, server = Trust(tmp_path), Server()
    vault = Served(trust.file)
    await vault.start()
    async with server.running(trust.context(HOST)), Double(mode="processes") as cluster:
        # The pod's proxy and authorities are in the agent's environment; both are tried.
        target = shlex.quote(f"https://{HOST}:{server.port}/echo")
        agent = tmp_path / "agent.sh"
        agent.write_text(
            f'curl -sS --noproxy "" -H "X-Key: $GITHUB_TOKEN" {target} > "$HOME/seen" 2>&1\n'
            'sed "s/stub_github_token_[0-9a-f]*/(a stub)/" "$HOME/seen"; echo "$SSL_CERT_FILE"; echo asked\n'
            "exec sleep 600\n"
        )
        platform = Platform(
            tmp_path / "data",
            {
                "LAP_HARNESS_COMMAND_CLAUDE_CODE": f"sh {agent}",
                "LAP_SANDBOXES": "kubernetes",
                "KUBECONFIG": str(cluster.kubeconfig),
                "K8S_NAMESPACE": cluster.namespace,
                "LAP_VAULT": "on",
                "LAP_VAULT_ADDRESSES": f"{HOST}:{vault.control_port}",
                "LAP_VAULT_PROXY": f"{HOST}:{vault.port}",
                "LAP_VAULT_KEY": KEY,
                "LAP_VAULT_REACHABLE": f"{HOST}:{server.port}",
            },
        )
        await platform.start()
        try:
            session = await platform.ready(await platform.create_agent(env_vars={"GITHUB_TOKEN": TOKEN}))
            place = f"{API}/sessions/{session['id']}"

            async def shown() -> str:
                screen = (await platform.http.get(f"{place}/screen", params={"format": "text"})).text
                return screen if "asked" in screen else ""

            screen = await until(shown, "the agent has called out")
            assert [dict(got["headers"])["x-key"] for got in server.requests] == [TOKEN], screen
            assert TOKEN not in screen and "(a stub)" in screen
            assert "/vault/ca-bundle.pem" in screen and str(platform.data_dir) not in screen

            async def told() -> bool:
                seen = (await platform.http.get(f"{place}/interceptions", params={"kind": "swapped"})).json()
                return len(seen) == 1

            await until(told, "it is told")
            assert (await platform.http.get(f"{place}/vault-keys")).json() == ["GITHUB_TOKEN"]
            assert (await platform.http.get("/healthz")).json()["vault"]["state"] == "on"
            # Nothing of it is in the cluster: neither the value, nor its stub, nor what the proxy knows the pod by.
            objects = [cluster.list(kind) for kind in ("sandboxes", "pods", "services", "events")]
            for secret in (TOKEN, "stub_", f"{session['task_arn']}:"):
                assert secret not in json.dumps(objects)

            await vault.end(kill=True)
            await until(lambda: _vault_state(platform, place), "its end is seen")
            found = (await platform.http.get(f"{place}/diagnose")).json()
            assert "vault_not_ready" in [hint["code"] for hint in found["hints"]]
            await vault.start()
        finally:
            await platform.close()
            await vault.end()


async def _vault_state(platform: Platform, place: str) -> bool:
    return bool((await platform.http.get("/healthz")).json()["vault"]["state"] == "down")
