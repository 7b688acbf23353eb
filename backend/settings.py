"""Settings of the platform: environment variables (LAP REST 8), and the two keys kept in files when not given there."""

import base64
import binascii
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.domain import agent_tokens, egress, env_vars, phases, quantities, repositories
from backend.domain.agents import HARNESSES
from backend.domain.sessions import IDLE_TIMEOUT_MS

MIN_MASTER_KEY: Final = 8
MIN_SIGNING_KEY: Final = 16
MIN_VAULT_KEY: Final = 32
ENCRYPTION_KEY_BYTES: Final = 32

_CONTAINER_ENV: Final = "CONTAINER_ENV_"
_PHASE_TIMEOUT: Final = "LAP_PHASE_TIMEOUT_SECONDS_"
_SQLITE: Final = re.compile(r"sqlite(\+aiosqlite)?:///")
_POSTGRES: Final = re.compile(r"postgres(ql)?(\+\w+)?://")
_HARNESS_COMMAND: Final = "LAP_HARNESS_COMMAND_"
_HARNESS_IMAGE: Final = "K8S_HARNESS_IMAGE_"
_IMAGE_NAMES: Final = {"CLAUDE_SDK": "claude-agent-sdk"}
"""What LAP calls a harness in the names of its image settings, where that is not its id."""


class SettingsError(Exception):
    """The settings, or the key files, cannot be used. The text lists every problem and repeats no secret."""


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    return url.rstrip("/")


def _repository(url: str) -> str:
    if reason := repositories.url_problem(url):
        raise ValueError(reason)
    return url


def _quantity(text: str) -> str:
    if (quantities.memory_bytes(text) or 0) <= 0:
        raise ValueError("must be a quantity above zero, such as 500m, 2 or 512Mi")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Quantity = Annotated[str, AfterValidator(_quantity)]


class Settings(BaseSettings):
    """All settings; each can be given by its field name or through the environment variable named as its alias."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        validate_default=False,
    )

    host: str = Field("127.0.0.1", validation_alias="BIND_HOST")
    port: int = Field(3000, ge=0, le=65535, validation_alias="PORT")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("lapconsole"), validation_alias="LAP_DATA_DIR"
    )
    database_url: str | None = Field(None, repr=False, validation_alias="DATABASE_URL")
    lap_base_url: HttpUrl | None = Field(None, validation_alias="LAP_BASE_URL")
    """Address under which clients reach the platform, when it is not the one they ask at."""

    master_key: SecretStr | None = Field(None, validation_alias="MASTER_KEY")
    encryption_key: SecretStr | None = Field(None, validation_alias="ENCRYPTION_KEY")
    """Base64 of 32 bytes."""
    harness_token_signing_key: SecretStr | None = Field(None, validation_alias="HARNESS_TOKEN_SIGNING_KEY")
    """Signs agent tokens; derived from the master key unless given."""

    litellm_api_base: HttpUrl | None = Field(None, validation_alias="LITELLM_API_BASE")
    litellm_api_key: SecretStr | None = Field(None, validation_alias="LITELLM_API_KEY")
    git_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("GIT_TOKEN", f"{_CONTAINER_ENV}GIT_TOKEN", "git_token")
    )
    preinstalled_github_repo: Annotated[str, AfterValidator(_repository)] | None = Field(
        None, validation_alias="PREINSTALLED_GITHUB_REPO"
    )
    """Repository for agents that have none."""

    container_env: dict[str, str] = Field(default_factory=dict, repr=False, validation_alias=f"{_CONTAINER_ENV}*")
    """Environment for every sandbox, from CONTAINER_ENV_<NAME>."""
    harness_commands: dict[str, str] = Field(default_factory=dict, validation_alias=f"{_HARNESS_COMMAND}*")
    """Command line that starts a harness's program, by harness id, from LAP_HARNESS_COMMAND_<ID>."""
    phase_timeouts: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, validation_alias=f"{_PHASE_TIMEOUT}*"
    )
    """Seconds by phase where they differ from the defaults, from LAP_PHASE_TIMEOUT_SECONDS_<PHASE>."""
    creating_timeout_seconds: float = Field(600, gt=0, validation_alias="LAP_CREATING_TIMEOUT_SECONDS")
    idle_timeout_ms: int = Field(IDLE_TIMEOUT_MS, gt=0, le=2**53, validation_alias="IDLE_TIMEOUT_MS")
    message_timeout_seconds: float = Field(1_800, gt=0, le=86_400, validation_alias="LAP_MESSAGE_TIMEOUT_SECONDS")
    """How long an agent may take to answer one message."""

    recording_max_mb: int = Field(64, ge=1, le=4096, validation_alias="LAP_RECORDING_MAX_MB")
    """Where the recording of one session stops."""
    recordings_kept_mb: int = Field(1024, ge=0, validation_alias="LAP_RECORDINGS_KEPT_MB")
    """For the recordings of ended sessions, all together; the oldest go first."""

    vault: Literal["on", "off"] = Field("on", validation_alias="LAP_VAULT")
    """Whether sandboxes get stubs instead of credentials and reach the network through the vault only."""
    vault_reachable: str = Field("", validation_alias="LAP_VAULT_REACHABLE")
    """host:port, comma-separated: exact targets that sandboxes may reach although they are on this machine."""
    vault_addresses: str = Field("", validation_alias="LAP_VAULT_ADDRESSES")
    """host:port, comma-separated: control ports of the vaults of sandboxes that run elsewhere. Of a name, each address
    is a vault."""
    vault_proxy: str | None = Field(None, validation_alias="LAP_VAULT_PROXY")
    """host:port of their proxy as those sandboxes reach it; a name is resolved here, not there."""
    vault_key: SecretStr | None = Field(None, validation_alias="LAP_VAULT_KEY")
    """What these vaults and this platform share, by which each proves itself to the other."""
    vault_key_file: Path | None = Field(None, validation_alias="LAP_VAULT_KEY_FILE")

    linear_client_id: str | None = Field(None, validation_alias="LINEAR_CLIENT_ID")
    linear_client_secret: SecretStr | None = Field(None, validation_alias="LINEAR_CLIENT_SECRET")
    linear_webhook_secret: SecretStr | None = Field(None, validation_alias="LINEAR_WEBHOOK_SECRET")
    """Linear is on when it has all three."""
    linear_app_base: HttpUrl = Field("https://linear.app", validation_alias="LINEAR_APP_BASE")
    linear_api_base: HttpUrl = Field("https://api.linear.app", validation_alias="LINEAR_API_BASE")
    """Where Linear is; other addresses are for trying it out."""

    log_format: Literal["text", "json"] = Field("text", validation_alias="LAP_LOG_FORMAT")
    reconcile_interval_seconds: int = Field(60, ge=1, le=3600, validation_alias="RECONCILE_INTERVAL_SECONDS")

    warm_pool_size: int = Field(0, ge=0, le=100, validation_alias="WARM_POOL_SIZE")
    """How many sandboxes wait for a session, of all agents together. Off unless asked for: one machine should not run
    spare agents, clone repositories and use tokens for sessions nobody may ever start."""
    warm_pool_max_provisioning: int = Field(2, ge=1, le=100, validation_alias="WARM_POOL_MAX_PROVISIONING")
    """How many of them are made at the same time."""
    warm_pool_ttl_minutes: int = Field(30, ge=1, le=525_600, validation_alias="WARM_POOL_TTL_MINUTES")
    """How long one waits, from when it was ready, before a fresh one takes its place."""
    warm_pool_recent_agent_hours: int = Field(24, ge=1, le=8760, validation_alias="WARM_POOL_RECENT_AGENT_HOURS")
    """Only agents that had a session within this time get one."""

    sandboxes: Literal["local", "kubernetes"] = Field("local", validation_alias="LAP_SANDBOXES")
    """Where sandboxes run: as processes of this machine, or as pods of agent-sandbox."""
    k8s_namespace: str = Field(
        "default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", validation_alias="K8S_NAMESPACE"
    )
    kube_config_b64: SecretStr | None = Field(None, validation_alias="KUBE_CONFIG_B64")
    kubeconfig: str | None = Field(None, validation_alias="KUBECONFIG")
    k8s_api_server: HttpUrl | None = Field(None, validation_alias="K8S_API_SERVER")
    k8s_skip_tls_verify: bool = Field(False, validation_alias="K8S_SKIP_TLS_VERIFY")
    in_cluster: bool = Field(False, validation_alias="IN_CLUSTER")
    """Whether the platform itself runs in the cluster, and so reaches the addresses of its services."""
    k8s_node_host: str = Field("auto", pattern=r"^[A-Za-z0-9.:\[\]-]{1,253}$", validation_alias="K8S_NODE_HOST")
    """Host at which the platform reaches node ports; "auto": addresses of the nodes."""
    k8s_service_type: Literal["NodePort", "ClusterIP"] | None = Field(None, validation_alias="K8S_SERVICE_TYPE")
    """None: ClusterIP in the cluster, NodePort outside."""
    k8s_harness_image: str | None = Field(None, validation_alias="K8S_HARNESS_IMAGE")
    k8s_harness_images: dict[str, str] = Field(default_factory=dict, validation_alias=f"{_HARNESS_IMAGE}*")
    """Image by harness id where it is another, from K8S_HARNESS_IMAGE_<ID>."""
    k8s_image_pull_policy: Literal["Never", "IfNotPresent", "Always"] = Field(
        "IfNotPresent", validation_alias="K8S_IMAGE_PULL_POLICY"
    )
    """IfNotPresent suits images that were loaded into the nodes as well as those of a registry."""
    k8s_image_pull_secrets: str = Field("", validation_alias="K8S_IMAGE_PULL_SECRETS")
    """Names of Secrets, comma-separated."""
    k8s_cpu_request: Quantity = Field("100m", validation_alias="K8S_CPU_REQUEST")
    k8s_memory_request: Quantity = Field("512Mi", validation_alias="K8S_MEMORY_REQUEST")
    """What the scheduler keeps free for a sandbox; its limits are the LAP_SANDBOX_ ones."""
    k8s_priority_active: str = Field("", validation_alias="K8S_PRIORITY_CLASS_ACTIVE")
    k8s_priority_warm: str = Field("", validation_alias="K8S_PRIORITY_CLASS_WARM")
    """Names of PriorityClasses, which must exist, for sandboxes of sessions and of the warm pool."""
    k8s_runtime_class: str = Field("", validation_alias="K8S_RUNTIME_CLASS")
    """Name of a RuntimeClass, such as gvisor or kata."""
    k8s_user: int = Field(1000, ge=1, le=2**31 - 1, validation_alias="K8S_RUN_AS_USER")
    """User and group id of everything in a sandbox."""

    isolation: Literal["auto", "required", "off"] = Field("auto", validation_alias="LAP_ISOLATION")
    """Walls around local sandboxes: where the machine allows them, or no session without them, or none."""
    sandbox_readable: str = Field("", validation_alias="LAP_SANDBOX_READABLE")
    """Paths, colon-separated, that sandboxes behind walls may read besides the system and the agents' programs."""
    sandbox_disk_mb: int | None = Field(None, ge=16, validation_alias="LAP_SANDBOX_DISK_MB")
    sandbox_memory_mb: int | None = Field(None, ge=16, validation_alias="LAP_SANDBOX_MEMORY_MB")
    sandbox_cpus: float | None = Field(None, ge=0.01, validation_alias="LAP_SANDBOX_CPUS")
    sandbox_pids: int | None = Field(None, ge=16, validation_alias="LAP_SANDBOX_PIDS")

    @classmethod
    def load(cls, **given: Any) -> Self:
        """From the environment; what is `given` by field name and is not None wins. Raises SettingsError."""
        try:
            return cls(**_by_prefix(os.environ), **{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            lines = [
                f"  - {'.'.join(map(str, issue['loc']))}: {issue['msg'].removeprefix('Value error, ')}"
                for issue in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise SettingsError("\n".join(["Invalid settings:", *lines])) from None

    @property
    def database_location(self) -> Path | str:
        """The SQLite file, or the URL of a PostgreSQL database, which has its password."""
        if self.database_url is not None and _POSTGRES.match(self.database_url):
            return _POSTGRES.sub("postgresql://", self.database_url)
        return self.database_path

    @property
    def database_path(self) -> Path:
        """The SQLite file, where the database is one."""
        if self.database_url is None:
            return self.data_dir / "platform.db"
        return Path(_SQLITE.sub("", self.database_url))

    @property
    def vault_reachable_targets(self) -> list[tuple[str, int]]:
        """`vault_reachable`, each a normal host and a port."""
        return [egress.split(entry.strip()) for entry in self.vault_reachable.split(",") if entry.strip()]

    @property
    def vault_places(self) -> list[tuple[str, int]]:
        """`vault_addresses`, each a normal host and a port."""
        return [egress.split(entry.strip()) for entry in self.vault_addresses.split(",") if entry.strip()]

    @property
    def sandbox_readable_paths(self) -> list[Path]:
        """`sandbox_readable`, each an absolute path."""
        return [Path(path).expanduser().absolute() for path in self.sandbox_readable.split(":") if path]

    @property
    def harness_images(self) -> dict[str, str]:
        """The image of each harness; those that `backend/deploy` builds on this machine unless set."""
        usual = {harness_id: self.k8s_harness_image or f"lap-{harness_id}:dev" for harness_id in HARNESSES}
        return usual | self.k8s_harness_images

    @property
    def image_pull_secret_names(self) -> list[str]:
        """`k8s_image_pull_secrets`, each."""
        return [name.strip() for name in self.k8s_image_pull_secrets.split(",") if name.strip()]

    @field_validator("vault_reachable", "vault_addresses", "vault_proxy")
    @classmethod
    def _exact_targets(cls, text: str) -> str:
        for entry in filter(None, map(str.strip, text.split(","))):
            try:
                egress.split(entry)
            except egress.BadHost as error:
                raise ValueError(f"{entry} is no host:port: {error}") from None
        return text

    @field_validator("vault_key")
    @classmethod
    def _usable_vault_key(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < MIN_VAULT_KEY:
            raise ValueError(f"must have at least {MIN_VAULT_KEY} characters, random ones")
        return key

    @model_validator(mode="after")
    def _whole_vault(self) -> Self:
        given = {
            "LAP_VAULT_ADDRESSES": self.vault_addresses,
            "LAP_VAULT_PROXY": self.vault_proxy,
            "LAP_VAULT_KEY": self.vault_key or self.vault_key_file,
        }
        missing = [name for name, value in given.items() if not value]
        if 0 < len(missing) < len(given):
            raise ValueError(f"vaults elsewhere need {', '.join(missing)}, too")
        if missing and self.sandboxes == "kubernetes" and self.vault == "on":
            raise ValueError(
                f"sandboxes on Kubernetes have their vaults in the cluster: set {', '.join(missing)}, or LAP_VAULT=off "
                "to give them real credentials"
            )
        return self

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if _POSTGRES.match(url):
            if not _is_postgres(_POSTGRES.sub("postgresql://", url)):
                raise ValueError(
                    "must be postgresql://user:password@host:port/database, with what is special in its parts %-encoded"
                )
        elif not (match := _SQLITE.match(url)) or match.end() == len(url):
            raise ValueError(
                "must be postgresql://user:password@host/database, or sqlite:///path (leave it out for a file in the "
                "data directory)"
            )
        return url

    @field_validator("master_key")
    @classmethod
    def _usable_master_key(cls, key: SecretStr) -> SecretStr:
        _check_master_key(key.get_secret_value())
        return key

    @field_validator("harness_token_signing_key")
    @classmethod
    def _usable_signing_key(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < MIN_SIGNING_KEY:
            raise ValueError(f"must have at least {MIN_SIGNING_KEY} characters")
        return key

    @field_validator("encryption_key")
    @classmethod
    def _usable_encryption_key(cls, key: SecretStr) -> SecretStr:
        _decode_encryption_key(key.get_secret_value())
        return key

    @field_validator("container_env")
    @classmethod
    def _usable_names(cls, env: dict[str, str]) -> dict[str, str]:
        names = [str(problem.path[-1]) for problem in env_vars.problems(env) if problem.code.startswith("invalid_")]
        if names:
            raise ValueError(f"cannot be an environment variable: {', '.join(names)}")
        return env

    @field_validator("harness_commands", "phase_timeouts", "k8s_harness_images", mode="before")
    @classmethod
    def _known_ids(cls, family: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        known: Collection[str] = phases.DEFAULT_TIMEOUTS if info.field_name == "phase_timeouts" else HARNESSES
        unknown = [name for name in family if name not in known]
        if unknown:
            raise ValueError(f"no such setting for {', '.join(unknown)}; known: {', '.join(known)}")
        return family

    def with_keys(self) -> Self:
        """The same settings with all keys: those not given are read from `master.key` and `encryption.key` in the
        data directory, which must exist, or made there once; that of the vaults is read from its file if it has one.
        Raises SettingsError, OSError.
        """
        keys: dict[str, SecretStr] = {}
        if self.master_key is None:
            path = self.data_dir / "master.key"
            keys["master_key"] = SecretStr(_key_file(path, lambda: secrets.token_urlsafe(32), _check_master_key))
        if self.encryption_key is None:
            path = self.data_dir / "encryption.key"
            if isinstance(self.database_location, Path) and self.database_path.exists() and not path.exists():
                raise SettingsError(
                    f"{self.database_path} was written with an encryption key that is not here: set ENCRYPTION_KEY, "
                    f"put the key back into {path}, or choose another --data-dir"
                )
            keys["encryption_key"] = SecretStr(_key_file(path, _new_encryption_key, _decode_encryption_key))
        if self.vault_key is None and self.vault_key_file is not None:
            shared = self.vault_key_file.read_text().strip()
            if len(shared) < MIN_VAULT_KEY:
                raise SettingsError(f"{self.vault_key_file} must have at least {MIN_VAULT_KEY} characters, random ones")
            keys["vault_key"] = SecretStr(shared)
        return self.model_copy(update=keys)

    def harness_command(self, harness_id: str) -> str | None:
        """The command line set for a harness, None for its usual program."""
        return self.harness_commands.get(harness_id)

    @property
    def git_token_value(self) -> str | None:
        """The token for cloning, in the clear."""
        return self.git_token.get_secret_value() if self.git_token else None

    @property
    def vault_key_value(self) -> str:
        """The key shared with vaults elsewhere, in the clear; only after `with_keys`, and if there are any."""
        assert self.vault_key is not None
        return self.vault_key.get_secret_value()

    @property
    def litellm_api_key_value(self) -> str | None:
        """The gateway's key, in the clear."""
        return self.litellm_api_key.get_secret_value() if self.litellm_api_key else None

    @property
    def master_key_value(self) -> str:
        """The master key; only after `with_keys`."""
        assert self.master_key is not None
        return self.master_key.get_secret_value()

    @property
    def agent_token_key(self) -> bytes:
        """The key that signs agent tokens, never the master key itself; only after `with_keys`."""
        if self.harness_token_signing_key is not None:
            return self.harness_token_signing_key.get_secret_value().encode()
        return agent_tokens.derived_key(self.master_key_value.encode())

    @property
    def encryption_key_value(self) -> bytes:
        """The encryption key; only after `with_keys`."""
        assert self.encryption_key is not None
        return _decode_encryption_key(self.encryption_key.get_secret_value())


def _by_prefix(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are families of variables, collected from their prefixes."""

    def family(prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in environment.items()
            if name.startswith(prefix) and name != prefix and value
        }

    container_env = family(_CONTAINER_ENV)
    container_env.pop("GIT_TOKEN", None)  # only for cloning, see `git_token`
    by_variable = {_variable(harness_id): harness_id for harness_id in HARNESSES}
    by_image = _IMAGE_NAMES | by_variable
    return {
        f"{_CONTAINER_ENV}*": container_env,
        f"{_HARNESS_COMMAND}*": {
            by_variable.get(name, name): command for name, command in family(_HARNESS_COMMAND).items()
        },
        f"{_HARNESS_IMAGE}*": {by_image.get(name, name): image for name, image in family(_HARNESS_IMAGE).items()},
        f"{_PHASE_TIMEOUT}*": {name.lower(): seconds for name, seconds in family(_PHASE_TIMEOUT).items()},
    }


def _is_postgres(url: str) -> bool:
    """Whether libpq can read a URL; what it says against one it would repeat parts of the password."""
    from psycopg import ProgrammingError  # takes its time: only for who uses it
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        return False
    # What an unencoded '@' or ':' of the password makes of them.
    return "@" not in str(parts.get("host", "")) and bool(re.fullmatch("[0-9,]*", str(parts.get("port", ""))))


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _check_master_key(key: str) -> None:
    if len(key) < MIN_MASTER_KEY:
        raise ValueError(f"must have at least {MIN_MASTER_KEY} characters")
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("must be printable ASCII without spaces: it travels in an HTTP header")


def _decode_encryption_key(key: str) -> bytes:
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != ENCRYPTION_KEY_BYTES:
        raise ValueError(f"must be base64 of {ENCRYPTION_KEY_BYTES} bytes, as `openssl rand -base64 32` prints")
    return decoded


def _new_encryption_key() -> str:
    return base64.b64encode(secrets.token_bytes(ENCRYPTION_KEY_BYTES)).decode()


def _key_file(path: Path, make: Callable[[], str], check: Callable[[str], object]) -> str:
    """The key in the file at `path`, made when there is none; checked either way."""
    if not path.exists():
        # Whole or not at all: a key cut short by a crash would be a different key.
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    try:
        key = path.read_text("ascii").strip()
        check(key)
    except ValueError as error:
        reason = "is not text" if isinstance(error, UnicodeError) else str(error)
        raise SettingsError(f"{path}: {reason}") from None
    return key
