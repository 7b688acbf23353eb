"""A stand-in for the harness program: takes its arguments, token and listener, and does what a test asks over TCP.

One JSON request a connection, `{"do": ...}`, and one JSON answer.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    token = json.loads(sys.stdin.readline())["token"]
    rest = sys.stdin.read()
    with socket.socket(fileno=int(arguments["--listen-fd"])) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as stream:
                answer = act(json.loads(stream.readline()), {"token": token, "rest": rest, "root": arguments["--root"]})
                stream.write(json.dumps(answer) + "\n")


def act(request: dict[str, object], start: dict[str, object]) -> object:
    match request:
        case {"do": "info"}:
            return start | {
                "pid": os.getpid(),
                "session": os.getsid(0),
                "environment": dict(os.environ),
                "directory": str(Path.cwd()),
                "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
                "core": resource.getrlimit(resource.RLIMIT_CORE),
                "ignored_signals": [int(s) for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN],
            }
        case {"do": "shell", "line": str(line)}:
            done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, stdin=subprocess.DEVNULL)
            return done.stdout + done.stderr
        case {"do": "say", "text": str(text)}:
            sys.stdout.write(text)
            sys.stdout.flush()
        case {"do": "exit", "code": int(code)}:
            os._exit(code)
        case {"do": "ignore SIGTERM"}:
            signal.signal(signal.SIGTERM, lambda *_: None)
        case {"do": "eat", "megabytes": int(megabytes)}:
            return len(bytearray(b"x") * (megabytes << 20))
    return None


if __name__ == "__main__":
    main()
