"""Settings from the environment, and the key files."""

import base64
import os
import stat
from pathlib import Path

import pytest

from backend.settings import Settings, SettingsError

FAMILIES = ("CONTAINER_ENV_", "LAP_", "LINEAR_", "LITELLM_", "HARNESS_", "K8S_", "KUBE")
SINGLE = ("MASTER_KEY", "ENCRYPTION_KEY", "DATABASE_URL", "BIND_HOST", "PORT", "GIT_TOKEN", "IDLE_TIMEOUT_MS")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of our variables is set."""
    for name in os.environ:
        if name.startswith(FAMILIES) or name in SINGLE:
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    """Settings under an environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_defaults() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert settings.idle_timeout_ms == 86_400_000
    assert settings.data_dir.is_absolute()
    assert settings.database_path == settings.data_dir / "platform.db"
    assert settings.master_key is settings.encryption_key is settings.lap_base_url is None
    assert (settings.recording_max_mb, settings.recordings_kept_mb) == (64, 1024)
    assert settings.container_env == settings.harness_commands == settings.phase_timeouts == {}


def test_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        BIND_HOST="0.0.0.0",
        PORT="0",
        LAP_DATA_DIR="~/somewhere",
        DATABASE_URL="sqlite:////srv/platform.db",
        LAP_BASE_URL="https://lap.example.com/",
        LITELLM_API_BASE="http://gateway:4000",
        LITELLM_API_KEY="gateway-key",
        CONTAINER_ENV_GIT_TOKEN="git-token",
        CONTAINER_ENV_HTTP_PROXY="http://proxy",
        PREINSTALLED_GITHUB_REPO="https://github.com/org/repo",
        LAP_HARNESS_COMMAND_CLAUDE_CODE="claude --debug",
        LAP_PHASE_TIMEOUT_SECONDS_CLONING_REPO="12.5",
        IDLE_TIMEOUT_MS="1000",
        LAP_SANDBOX_MEMORY_MB="512",
        LAP_SANDBOX_CPUS="1.5",
        LAP_SANDBOX_PIDS="100",
        LAP_RECORDING_MAX_MB="8",
        LAP_RECORDINGS_KEPT_MB="0",
    )
    assert (settings.host, settings.port, settings.idle_timeout_ms) == ("0.0.0.0", 0, 1000)
    assert settings.data_dir == Path.home() / "somewhere"
    assert settings.database_path == Path("/srv/platform.db")
    assert settings.lap_base_url == "https://lap.example.com"
    assert (settings.litellm_api_base, settings.litellm_api_key_value) == ("http://gateway:4000", "gateway-key")
    assert settings.git_token_value == "git-token"
    assert settings.container_env == {"HTTP_PROXY": "http://proxy"}
    assert settings.harness_command("claude-code") == "claude --debug"
    assert settings.harness_command("codex") is None
    assert settings.phase_timeouts == {"cloning_repo": 12.5}
    assert (settings.sandbox_memory_mb, settings.sandbox_cpus, settings.sandbox_pids) == (512, 1.5, 100)
    assert (settings.recording_max_mb, settings.recordings_kept_mb) == (8, 0)
    assert "gateway-key" not in repr(settings)
    assert "git-token" not in repr(settings)
    assert "http://proxy" not in repr(settings)


def test_git_token_wins_over_the_container_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, CONTAINER_ENV_GIT_TOKEN="b", GIT_TOKEN="a").git_token_value == "a"


def test_arguments_win_and_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "4000")
    monkeypatch.setenv("MASTER_KEY", "")
    monkeypatch.setenv("LAP_BASE_URL", "")
    assert Settings.load(port=5000, host=None).port == 5000
    assert Settings.load().port == 4000
    assert Settings.load().master_key is None


def test_all_problems_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "MASTER_KEY": "s3cret",
        "ENCRYPTION_KEY": "s3cret-but-not-32-bytes",
        "PORT": "70000",
        "DATABASE_URL": "mysql://user:s3cret@host/db",
        "LAP_BASE_URL": "ftp://x",
        "LITELLM_API_BASE": "nowhere",
        "PREINSTALLED_GITHUB_REPO": "ext::sh",
        "CONTAINER_ENV_A-B": "s3cret",
        "LAP_HARNESS_COMMAND_VIM": "vim",
        "LAP_PHASE_TIMEOUT_SECONDS_COFFEE": "1",
        "IDLE_TIMEOUT_MS": "0",
        "LAP_SANDBOX_PIDS": "many",
        "LAP_RECORDING_MAX_MB": "0",
        "LAP_RECORDINGS_KEPT_MB": "-1",
    }
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **variables)
    head, *lines = str(caught.value).splitlines()
    assert head == "Invalid settings:"
    assert len(lines) == len(variables)
    for name in variables:
        start = next(
            (family for family in ("CONTAINER_ENV_", "LAP_HARNESS", "LAP_PHASE") if name.startswith(family)), name
        )
        assert any(line.startswith(f"  - {start}") for line in lines), name
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["with space", "über-key-1", "tab\tkey-12", "1234567"])
def test_refused_master_keys(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with pytest.raises(SettingsError, match="MASTER_KEY"):
        load(monkeypatch, MASTER_KEY=key)


def test_keys_are_made_once_for_the_owner_only(tmp_path: Path) -> None:
    first = Settings.load(data_dir=tmp_path).with_keys()
    second = Settings.load(data_dir=tmp_path).with_keys()
    assert len(first.master_key_value) >= 32
    assert len(first.encryption_key_value) == 32
    assert second.master_key_value == first.master_key_value == (tmp_path / "master.key").read_text().strip()
    assert second.encryption_key_value == first.encryption_key_value
    for name in ("master.key", "encryption.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_given_keys_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = base64.b64encode(bytes(32)).decode()
    settings = load(monkeypatch, MASTER_KEY="long-enough", ENCRYPTION_KEY=key, LAP_DATA_DIR=str(tmp_path)).with_keys()
    assert (settings.master_key_value, settings.encryption_key_value) == ("long-enough", bytes(32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe binary", b"two words here"])
def test_a_broken_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "master.key").write_bytes(content)
    with pytest.raises(SettingsError, match=r"master\.key: "):
        Settings.load(data_dir=tmp_path).with_keys()


def test_a_lost_encryption_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "platform.db").touch()
    with pytest.raises(SettingsError, match="set ENCRYPTION_KEY"):
        Settings.load(data_dir=tmp_path).with_keys()


def test_linear_and_the_signing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, LINEAR_API_BASE="http://127.0.0.1:4100/", LINEAR_CLIENT_SECRET="s3cret-of-linear")
    assert (settings.linear_app_base, settings.linear_api_base) == ("https://linear.app", "http://127.0.0.1:4100")
    assert "s3cret" not in repr(settings)
    with pytest.raises(SettingsError, match="HARNESS_TOKEN_SIGNING_KEY: must have at least 16 characters"):
        load(monkeypatch, HARNESS_TOKEN_SIGNING_KEY="short-key")
    monkeypatch.setenv("HARNESS_TOKEN_SIGNING_KEY", "long enough a key")
    with pytest.raises(SettingsError, match="LINEAR_API_BASE: must be an http or https URL"):
        load(monkeypatch, LINEAR_API_BASE="ftp://linear")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_a_postgresql_database(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user:s3cret@host:5433/db?sslmode=require")
    settings = Settings.load()
    assert settings.database_location == "postgresql://user:s3cret@host:5433/db?sslmode=require"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@host:port:/db",
        "postgresql://user:a@s3cret@host/db",
        "postgresql://user:s3cr%zzet@host/db",
        "postgresql://h/db?no=s3cret",
    ],
)
def test_a_postgresql_url_that_is_none(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"DATABASE_URL: must be postgresql://.*%-encoded") as caught:
        Settings.load()
    assert "s3cr" not in str(caught.value)


def test_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().sandboxes == "local"
    usual = Settings.load().harness_images
    assert usual["codex"] == "lap-codex:dev"
    settings = load(
        monkeypatch,
        LAP_SANDBOXES="kubernetes",
        LAP_VAULT="off",
        K8S_NAMESPACE="agents",
        K8S_NODE_HOST="nodes.example",
        K8S_HARNESS_IMAGE="all:1",
        K8S_HARNESS_IMAGE_CLAUDE_SDK="sdk:1",
        K8S_HARNESS_IMAGE_CODEX="codex:1",
        K8S_IMAGE_PULL_POLICY="Always",
        K8S_IMAGE_PULL_SECRETS="one, two",
        K8S_SKIP_TLS_VERIFY="true",
        KUBE_CONFIG_B64="c2VjcmV0",
        IN_CLUSTER="true",
    )
    assert (settings.sandboxes, settings.k8s_namespace, settings.k8s_node_host) == (
        "kubernetes",
        "agents",
        "nodes.example",
    )
    assert settings.harness_images == {
        "opencode": "all:1",
        "claude-agent-sdk": "sdk:1",
        "claude-code": "all:1",
        "codex": "codex:1",
    }
    assert settings.image_pull_secret_names == ["one", "two"]
    assert settings.k8s_skip_tls_verify
    assert settings.in_cluster
    assert "c2VjcmV0" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAP_SANDBOXES", "docker"),
        ("K8S_NAMESPACE", "Not_One"),
        ("K8S_NODE_HOST", "http://node/"),
        ("K8S_IMAGE_PULL_POLICY", "Sometimes"),
        ("K8S_CPU_REQUEST", "much"),
        ("K8S_MEMORY_REQUEST", "0"),
        ("K8S_RUN_AS_USER", "0"),
        ("K8S_API_SERVER", "cluster"),
    ],
)
def test_bad_kubernetes_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(monkeypatch, **{name: value})


def test_an_image_for_no_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no such setting for NOBODY"):
        load(monkeypatch, K8S_HARNESS_IMAGE_NOBODY="image:1")
