"""Which repositories and branches a sandbox may be told to clone.

Both end up as arguments of git, so nothing may look like an option, name a transport that runs a program (`ext::`),
or carry a password that would then be readable in the API, in argv and in `.git/config`.
"""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

MAX_URL_LENGTH: Final = 2048
MAX_BRANCH_BYTES: Final = 244
SCHEMES: Final[frozenset[str]] = frozenset({"https", "http", "ssh", "git", "file"})

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_PATH_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.%]+\]")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SCP_LIKE: Final = re.compile(r"(?P<user>[^/@:]+)@(?P<host>\[[^\]]+\]|[^/:@]+):(?P<path>.+)")
_BRANCH_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]")


def url_problem(repo_url: str) -> str | None:
    """Why `repo_url` is refused, or None: https, http, ssh, git, file, `user@host:path`, or an absolute path."""
    if not repo_url:
        return "must not be empty"
    if len(repo_url) > MAX_URL_LENGTH:
        return f"must be at most {MAX_URL_LENGTH} characters"
    if repo_url.startswith("-"):
        return "must not start with '-'"
    if repo_url.startswith("/"):
        return _path_problem(repo_url)
    if _UNSAFE.search(repo_url):
        return "must not contain spaces, control characters or broken Unicode"
    if "://" in repo_url:
        return _scheme_url_problem(repo_url)
    scp_like = _SCP_LIKE.fullmatch(repo_url)
    if scp_like is None:
        return "must be an https, http, ssh, git or file URL, user@host:path, or an absolute path"
    return _remote_problem(scp_like["user"], scp_like["host"]) or _remote_path_problem(scp_like["path"])


def branch_problem(branch: str) -> str | None:
    """Why `branch` is no branch name by the rules of `git check-ref-format --branch`, or None."""
    if not branch:
        return "must not be empty"
    if len(branch.encode("utf-8", "surrogatepass")) > MAX_BRANCH_BYTES:
        return f"must be at most {MAX_BRANCH_BYTES} bytes"
    if branch.startswith("-"):
        return "must not start with '-'"
    if branch in ("@", "HEAD"):
        return f"must not be {branch}"
    if _BRANCH_FORBIDDEN.search(branch):
        return "must not contain spaces, control characters or any of ~^:?*[\\"
    if ".." in branch or "@{" in branch or branch.endswith("."):
        return "must not contain '..' or '@{', nor end with '.'"
    parts = branch.split("/")
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in parts):
        return "each part between slashes must be non-empty, not start with '.' and not end with '.lock'"
    return None


def local_path(repo_url: str) -> str | None:
    """The absolute path of a repository on this machine; None for any other."""
    if repo_url.startswith("/"):
        return repo_url
    return unquote(urlsplit(repo_url).path) if repo_url.startswith("file://") else None


def directory_name(repo_url: str) -> str:
    """The directory a clone of `repo_url` goes to: its last part without `.git`, safe as one file name."""
    path = repo_url.split("://", 1)[-1].split("?", 1)[0].split("#", 1)[0].rstrip("/")
    name = re.split(r"[/:]", path)[-1].removesuffix(".git")
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", name).lstrip(".-")[:100]
    return name or "repo"


def _scheme_url_problem(repo_url: str) -> str | None:
    try:
        parts = urlsplit(repo_url)
        parts.port  # noqa: B018  (the attribute raises when the port is no number)
    except ValueError:
        return "is not a valid URL"
    # Git reads the scheme literally, urlsplit folds its case: only the literal form is known to mean the same.
    if repo_url.split("://", 1)[0] not in SCHEMES:
        return f"must use one of {', '.join(sorted(SCHEMES))}"
    if parts.password is not None:
        return "must not carry a password: set GITHUB_TOKEN in env_vars, or GIT_TOKEN on the platform"
    if parts.scheme == "file":
        return _path_problem(parts.path) if parts.netloc in ("", "localhost") else "must be a local path: file:///path"
    if not parts.hostname:
        return "must name a host"
    host = parts.netloc.rpartition("@")[2]
    host = host if host.endswith("]") else re.sub(r":\d*$", "", host)
    return _remote_problem(parts.username, host) or _remote_path_problem(parts.path.lstrip("/"))


def _remote_problem(user: str | None, host: str) -> str | None:
    if user is not None and not _USER.fullmatch(user):
        return "has a user name that is not allowed"
    return None if _HOST.fullmatch(host) else "has a host name that is not allowed"


def _remote_path_problem(path: str) -> str | None:
    if not path.strip("/"):
        return "must name a repository on the host"
    # `ssh host git-upload-pack '-x'` would be read as an option by the far side.
    return "has a path that starts with '-'" if path.startswith("-") else None


def _path_problem(path: str) -> str | None:
    if not path.startswith("/") or not path.strip("/"):
        return "must name a directory"
    return "must not contain control characters or broken Unicode" if _PATH_UNSAFE.search(path) else None
