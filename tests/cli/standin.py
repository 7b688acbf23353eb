"""A stand-in for `python -m backend`: keeps the platform's promises to the console, or breaks the one asked for.

It is copied as a package named `backend` to a folder on PYTHONPATH. STANDIN in its environment names what it does:
"" (behaves), "busy" (has a session), "refuse" (ends with an error), "mute" (never listens), "stubborn" (ignores
SIGTERM).
"""

import argparse
import http.server
import json
import os
import pathlib
import signal
import sys
import threading

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
options = parser.parse_args()
mood = os.environ.get("STANDIN", "")
print("stand-in starts", flush=True)
if mood == "refuse":
    sys.exit("cannot listen: \x1b[31maddress in use")

ended = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if mood == "stubborn" else lambda *_: ended.set())


SESSION = {
    "id": "22222222-2222-4222-8222-222222222222",
    "status": "ready",
    "isolation": {"pid_namespace": True, "limits": {"by": "cgroup", "pids": 512}, "reason": "no cpu controller"},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Healthy, and takes the key of MASTER_KEY or of the data folder."""

    def do_GET(self) -> None:
        known = f"Bearer {key}"
        status = 200 if self.path == "/healthz" or self.headers["authorization"] == known else 401
        body = json.dumps([SESSION] if mood == "busy" else []).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


key = os.environ.get("MASTER_KEY") or "key-of-the-folder"
if "MASTER_KEY" not in os.environ:
    (options.data_dir / "master.key").write_text(key + "\n")
(options.data_dir / "environment.json").write_text(json.dumps(dict(os.environ)))
record = options.data_dir / "platform.json"
if mood != "mute":
    server = http.server.ThreadingHTTPServer((options.host, options.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    announcement = {
        "pid": os.getpid(),
        "url": f"http://127.0.0.1:{server.server_port}",
        "started_at": "2026-01-02T03:04:05.678Z",
    }
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(announcement))
    fresh.rename(record)  # whole or not at all, as the real one does it
ended.wait()
record.unlink(missing_ok=True)
