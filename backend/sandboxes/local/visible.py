"""What a walled sandbox sees of the machine, all of it read-only.

- the system: /usr and what belongs to it, and of /etc what any user may read and programs need (a copy);
- the Python that runs the platform, and the platform's own packages, for the harness program;
- the programs of the harnesses: their folders on PATH, the packages those link to, and what harness commands name;
- what the operator names (LAP_SANDBOX_READABLE).

Nothing else of the machine is there: no home, no data directory, no /run, /sys, /var, no other /tmp.
"""

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import backend
import lapconsole

SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store", "gnu/store")
HOMEBREW: Final = Path("/home/linuxbrew/.linuxbrew")
PROGRAMS: Final = (
    *("claude", "codex", "opencode", "node", "npm", "npx", "bun", "deno"),
    *("git", "ssh", "uv", "rg", "gh", "pnpm", "yarn", "go", "cargo"),
)
"""Looked for on PATH, besides those that harness commands name."""

ETC: Final = (
    *("alternatives", "bash.bashrc", "bash_completion", "ca-certificates", "ca-certificates.conf", "crypto-policies"),
    *("debian_version", "emacs", "fonts", "gai.conf", "gitconfig", "host.conf", "htop", "inputrc", "ld.so.cache"),
    *("ld.so.conf", "ld.so.conf.d", "less", "lesskey", "locale.alias", "locale.conf", "localtime", "login.defs"),
    *("lsb-release", "magic", "magic.mime", "mailcap", "mc", "mime.types", "nanorc", "os-release", "perl"),
    *("pki/ca-trust/extracted", "pki/tls/certs", "pki/tls/cert.pem", "profile", "profile.d", "protocols"),
    *("redhat-release", "rpc", "screenrc", "services", "shells", "skel", "ssl/cert.pem", "ssl/certs"),
    *("ssl/openssl.cnf", "terminfo", "timezone", "tmux.conf", "vim", "wgetrc", "xdg", "zsh", "zshrc"),
)
ETC_PATTERNS: Final = ("java*", "python3*")
MAX_ETC_FILE: Final = 4 * 1024 * 1024
MAX_LINKS: Final = 10

_TREES: Final = tuple(Path("/", name) for name in SYSTEM)

_MADE: Final = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": "sandbox\n",
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}


def write_etc(target: Path) -> None:
    """Make, or bring up to date, what sandboxes see as /etc. Sandboxes that run see the same folder."""
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    names = [*ETC, *(path.name for pattern in ETC_PATTERNS for path in Path("/etc").glob(pattern))]
    for name in names:
        _copy(Path("/etc", name), target / name)
    for name, text in _MADE.items():
        _put(target / name, text.encode())


def _copy(source: Path, target: Path) -> None:
    """Copy what any user of the machine may read; links stay links. What cannot be copied is left out."""
    try:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            link = source.readlink()
            if not target.is_symlink() or target.readlink() != link:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(link)
        elif stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IROTH:
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
            for entry in source.iterdir():
                _copy(entry, target / entry.name)
        elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= MAX_ETC_FILE:
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(target, source.read_bytes())
    except OSError:
        return


def _put(path: Path, content: bytes) -> None:
    if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def system() -> Iterator[tuple[str, str, str]]:
    """The system's trees, as arguments of bubblewrap."""
    for path in _TREES:
        if path.is_symlink():
            yield "--symlink", str(path.readlink()), str(path)
        elif path.is_dir():
            yield "--ro-bind", str(path), str(path)
    if HOMEBREW.is_dir():
        yield "--ro-bind", str(HOMEBREW), str(HOMEBREW)


def programs(data_dir: Path, commands: Iterable[str], named: Iterable[Path]) -> list[Path]:
    """Paths outside of the system's trees to show. `commands` are first words and absolute paths of command lines."""
    wanted = [*_python(), *named]
    names = set(PROGRAMS)
    for command in commands:
        path = Path(command)
        if path.is_absolute():
            wanted += [path, *_packages(path)]
        else:
            names.add(command)
    for folder in map(Path, dict.fromkeys(os.get_exec_path())):
        if folder.is_absolute() and not _of_system(folder):
            wanted += _on_path(folder, names)
    own = home()
    allowed = {path for path in wanted if not _of_system(path) and path.exists() and not _too_much(path, data_dir, own)}
    return [path for path in sorted(allowed) if not any(other in allowed for other in path.parents)]


def home() -> Path:
    """Of the platform's user; a place that is none for a user without."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent/home")


def _python() -> list[Path]:
    ours = [Path(module.__file__ or "").resolve().parent for module in (backend, lapconsole)]
    packages = [Path(path) for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [Path(sys.prefix), Path(sys.base_prefix), *packages, *ours]


def _on_path(folder: Path, names: Collection[str]) -> list[Path]:
    """A folder of PATH if programs of these names are in it, where they link to, and the packages they belong to."""
    try:
        found = [folder / name for name in os.listdir(folder) if name in names]  # noqa: PTH208 - names only
    except OSError:
        return []
    shown = [folder, folder.parent / "lib/node_modules"] if found else []
    for path in found:
        for _ in range(MAX_LINKS):
            if not path.is_symlink():
                break
            path = Path(os.path.normpath(path.parent / path.readlink()))
            shown += [path.parent, *_packages(path)]
        real = path.resolve()
        shown += [real.parent, *_packages(real)]
    return shown


def _packages(path: Path) -> list[Path]:
    """The topmost `node_modules` that a path is in: packages use others beside them."""
    if "node_modules" not in path.parts:
        return []
    return [Path(*path.parts[: path.parts.index("node_modules") + 1])]


def _too_much(path: Path, data_dir: Path, own: Path) -> bool:
    """Whether showing a path would show more than programs: a home, the data directory, a root of many things."""
    if not path.is_absolute() or len(path.parts) < 3:
        return True
    real = path.resolve()
    return any(
        place == kept or kept.is_relative_to(place) or place.is_relative_to(data_dir)
        for place in (path, real)
        for kept in (own, data_dir)
    )


def _of_system(path: Path) -> bool:
    return any(path.is_relative_to(tree) for tree in _TREES)


def repository(path: Path, data_dir: Path) -> list[Path]:
    """What a clone of a local repository reads: its git folder only, not the files beside it. [] if it is none."""
    path = path.resolve()
    folder = path / ".git"
    found = []
    if folder.is_file():  # A worktree, or a submodule: the file names the folder.
        found.append(folder)
        with folder.open("rb") as file:
            said = file.read(4096).decode(errors="replace").strip()
        folder = (path / said.removeprefix("gitdir:").strip()).resolve()
        if folder.parent.name == "worktrees":
            folder = folder.parents[1]
    elif not folder.is_dir():
        folder = path
    if not all((folder / name).exists() for name in ("HEAD", "objects", "refs")):
        return []
    return [] if folder.is_relative_to(data_dir) or data_dir.is_relative_to(folder) else [*found, folder]


def words(command: str) -> Sequence[str]:
    """Of a harness's command line, what may have to be shown: its first word and every absolute path."""
    parts = command.replace("'", " ").replace('"', " ").split()
    return [part for index, part in enumerate(parts) if index == 0 or part.startswith("/")]
