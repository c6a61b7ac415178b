"""A real server of objects (SeaweedFS), and a proxy before it that now and then answers 503."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "vehicles"
KEY, SECRET = "somebody", "secret-of-somebody"
#: Seconds the server may take to start.
PATIENCE = 150


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes
    ----------
    port : int
    folder : Path
        Where it keeps objects, and its log.
    """

    port: int
    folder: Path

    def environment(self, port: int | None = None, secret: str = SECRET) -> dict[str, str]:
        """Return what a client's environment holds."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on; a second port of SeaweedFS lies 10,000 above each."""
    found: list[int] = []
    while len(found) < n:
        with socket.socket() as probe, socket.socket() as above:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port + 10_000 > 65_535:
                port -= 20_000
            with contextlib.suppress(OSError):
                above.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


@contextlib.contextmanager
def serving(weed: str, folder: Path) -> Iterator[Server]:
    """Start the server, wait until it takes objects, stop it at the end."""
    identity = {
        "name": KEY,
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = free_ports(4)
    words = [
        weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3",
        f"-s3.port={s3}", "-s3.port.iceberg=0", f"-s3.config={folder / 's3.json'}", f"-master.port={master}",
        f"-volume.port={volume}", f"-filer.port={filer}", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256", "-volume.max=0",
    ]  # fmt: skip
    with open(folder / "weed.log", "wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
        server = Server(s3, folder)
        try:
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            process.kill()
            process.wait()


def file_system(server: Server) -> Any:
    """Return a client of the server that remembers nothing."""
    import s3fs

    return s3fs.S3FileSystem(
        key=KEY,
        secret=SECRET,
        endpoint_url=f"http://127.0.0.1:{server.port}",
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1):
                fs = file_system(server)
            fs.mkdir(BUCKET)
            fs.pipe_file(f"{BUCKET}/first", b"here")
            return
        except Exception:  # whatever its client says while it starts
            told = (server.folder / "weed.log").read_text(errors="replace")[-2000:]
            assert process.poll() is None, told
            assert time.monotonic() < end, told
            time.sleep(0.3)


class Flaky(http.server.ThreadingHTTPServer):
    """A proxy that hands requests on, and answers 503 to a share of them instead."""

    daemon_threads = True

    def __init__(self, server: Server, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Hand)
        self.behind = server
        self.share = share
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.asked = 0
        self.refused = 0

    def refuses(self) -> bool:
        """Decide about one request."""
        with self.lock:
            self.asked += 1
            refused = self.random.random() < self.share
            self.refused += refused
            return refused


class _Hand(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky

    def _hand_on(self) -> None:
        body = self._body()
        if self.server.refuses():
            content = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
            self._answer(503, [("Content-Type", "application/xml")], content)
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind.port, timeout=60)
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")
        }
        behind.request(self.command, self.path, body=body, headers=headers)
        got = behind.getresponse()
        content = got.read()
        kept = [
            (k, v)
            for k, v in got.getheaders()
            if k.lower() not in ("transfer-encoding", "connection", "content-length")
        ]
        length = got.getheader("Content-Length") if self.command == "HEAD" else None
        behind.close()
        self._answer(got.status, kept, content, length)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def flaky(server: Server, share: float, seed: int) -> Iterator[Flaky]:
    """Start a proxy before the server."""
    proxy = Flaky(server, share, seed)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
