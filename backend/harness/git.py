"""Clones the agent's repository, and says in plain words why that failed."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from backend.domain.repositories import branch_problem, url_problem
from backend.harness.adapters import SetupError
from backend.harness.processes import Processes

TIMEOUT_SECONDS = 1800.0
"""The last resort: the platform gives a phase less."""
MAX_SAID = 600

TOKEN_VARIABLE = "LAP_GIT_TOKEN"
# Asked for "get", "store" or "erase" in $1. The shell reads the token from the environment of git's own process tree.
_HELPER = f'!f() {{ test "$1" = get && printf \'username=x-access-token\\npassword=%s\\n\' "${TOKEN_VARIABLE}"; }}; f'

_NOISE = re.compile(r"^(Cloning into|hint:|warning: redirecting|\s*$|and the repository exists|Please make sure)")
_PROGRESS = re.compile(r":\s+\d+% \(")

# What git says -> what to do. The first match counts.
_ADVICE = (
    (
        r"Remote branch .* not found",
        "Check the agent's branch: the repository has none of this name.",
    ),
    (
        r"could not read (Username|Password)|Authentication failed|Invalid (username|credentials)|HTTP Basic|"
        r"returned error: 40[13]|Permission denied|Host key verification failed",
        "Check the credentials: a private repository needs GIT_TOKEN on the platform or GITHUB_TOKEN in the agent's "
        "env_vars, with access to it (over ssh: a key under ~/.ssh in the agent's files).",
    ),
    (
        r"Could not resolve|Failed to connect|Couldn't connect|Connection (refused|timed out|reset)|timed out|"
        r"Network is unreachable|No route to host|unable to (connect|look up)|Operation too slow|"
        r"[Pp]roxy|SSL|certificate",
        "The host could not be reached: check the repository's address, the network, proxies and certificates.",
    ),
    (
        r"dubious ownership",
        "The repository belongs to another user: clone it from a copy of your own, or over https or ssh.",
    ),
    (
        r"not found|does not exist|does not appear to be a git repository|returned error: 404",
        "Check the repository's address. A private one looks like this, too, without a token that may read it.",
    ),
    (r"cannot run ssh", "Install an ssh client on the platform's machine, or use an https address."),
    (r"No space left|Disk quota", "Free some space on the platform's disk."),
)


async def clone(
    processes: Processes,
    *,
    url: str,
    branch: str | None,
    token: str | None,
    directory: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
) -> None:
    """Clones the newest commit of `branch` (None: the default one) into `directory`. Raises SetupError.

    The token is only in the environment of the git process: not in its arguments, nor in the clone's configuration.
    """
    problem = url_problem(url)
    if problem is not None:
        raise SetupError(f"repo_url {problem}. Correct the agent's repository.")
    if branch:
        problem = branch_problem(branch)
        if problem is not None:
            raise SetupError(f"branch {problem}. Correct the agent's branch.")
    env = {**env, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": _ssh(directory.parent), "LC_ALL": "C.UTF-8"}
    options = ["-c", "credential.helper=", "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"]
    if token and url.startswith(("https://", "http://")):
        parts = urlsplit(url)
        # For this host only: a redirect elsewhere gets no token.
        options += ["-c", f"credential.{parts.scheme}://{parts.netloc.rpartition('@')[2]}.helper={_HELPER}"]
        env[TOKEN_VARIABLE] = token
    source = f"file://{url}" if url.startswith("/") else url  # A plain path would ignore --depth.
    what = ["--progress", *(["--branch", branch] if branch else []), "--", source, str(directory)]
    for depth in (["--depth", "1"], []):
        try:
            code, lines = await processes.run(
                ["git", *options, "clone", *depth, *what],
                env=env,
                cwd=directory.parent,
                timeout=TIMEOUT_SECONDS,
                on_line=on_line,
            )
        except FileNotFoundError as error:
            raise SetupError("git was not found. Install git on the platform's machine.") from error
        except TimeoutError as error:
            raise SetupError(f"git clone took longer than {TIMEOUT_SECONDS:g} s. Try a smaller one.") from error
        if code == 0:
            return
        if not any("does not support shallow" in line for line in lines):
            break
    raise SetupError(_failure(code, lines))


def _failure(code: int, lines: list[str]) -> str:
    said = [line.strip() for line in lines if not _NOISE.match(line) and not _PROGRESS.search(line)]
    if any(line.startswith("fatal:") for line in said):
        said = [line for line in said if not line.startswith("warning:")]
    text = "\n".join(said[-5:])[-MAX_SAID:] or f"exit code {code}, without a word"
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, text)), "The sandbox log has all of it.")
    return f"git clone failed: {advice}\ngit said: {text}"


def _ssh(home: Path) -> str:
    """An ssh that never asks, with the keys the agent's files brought (ssh itself does not look at HOME)."""
    keys = sorted(key for key in home.glob(".ssh/id_*") if key.suffix != ".pub" and key.is_file())
    options = ["BatchMode=yes", "ConnectTimeout=20", "StrictHostKeyChecking=accept-new"]
    options.append(f"UserKnownHostsFile={home}/.ssh/known_hosts")
    words = ["ssh", *(f"-o '{option}'" for option in options), *(f"-i '{key}'" for key in keys)]
    return " ".join(words)
