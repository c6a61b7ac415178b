"""A scheduler that asks for certificates: whom it lets in, and what a job leaves on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client
from distributed.security import Security

from tests.components import need_module
from tests.end_to_end.conftest import digests, run_cli
from tests.places.conftest import ROOT, free_port, listening, until
from vehclust_dask.place.certs import make_certs

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Guarded:
    """A TLS scheduler with two workers."""

    port: int
    certs: Path

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"tls://127.0.0.1:{self.port}"

    def place(self, file: Path, certs: Path | None = None, *more: str) -> Path:
        """Write a place file with a client's certificate."""
        folder = certs or self.certs
        lines = [
            "kind: address",
            f"address: {self.address}",
            f"tls_ca: {self.certs / 'ca.pem'}",
            f"tls_cert: {folder / 'client.pem'}",
            f"tls_key: {folder / 'client.key'}",
            *more,
        ]
        file.write_text("\n".join(lines) + "\n")
        return file


@pytest.fixture(scope="module")
def guarded(dask: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """Start scheduler and workers, with a umask that would let everybody write."""
    need_module("cryptography", "trustme", install="pip install 'vehclust-dask[dev]'")
    certs = tmp_path_factory.mktemp("tls") / "certs"
    make_certs(certs, ("127.0.0.1",))
    one = Guarded(free_port(), certs)

    def tls(role: str) -> tuple[object, ...]:
        files = ("--tls-cert", certs / f"{role}.pem", "--tls-key", certs / f"{role}.key")
        return ("--tls-ca-file", certs / "ca.pem", *files, "--host", "127.0.0.1", "--no-dashboard")

    before = os.umask(0)
    try:
        dask("scheduler", "--protocol", "tls", "--port", one.port, *tls("scheduler"), project=ROOT)
        until(lambda: listening(one.port), "a scheduler")
        for _ in range(2):
            sizes = ("--nthreads", 1, "--memory-limit", "1GiB")
            dask("worker", one.address, *sizes, *tls("worker"), project=ROOT)
    finally:
        os.umask(before)
    return one


def test_tls__runs_the_job_and_gives_the_same_bytes_that_others_cannot_change(
    guarded: Guarded, job: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    file = guarded.place(tmp_path / "place.yaml")
    before = os.umask(0)
    try:
        ended = run_cli("run", job, "--workdir", tmp_path / "work", "--cluster", file)
    finally:
        os.umask(before)
    assert ended.code == 0, ended.err
    assert digests(tmp_path / "work") == expected
    written = [f for f in (tmp_path / "work").rglob("*") if not f.is_symlink()]
    assert not [f for f in written if f.stat().st_mode & 0o002]
    secret = {
        (guarded.certs / f"{who}.key").read_text().splitlines()[1] for who in ("ca", "client")
    }
    told = ended.out + ended.err + "".join(f.read_text() for f in written if f.suffix == ".json")
    assert not [line for line in secret if line in told]


def joins(guarded: Guarded, security: Security | None, protocol: str = "tls") -> bool:
    """Say whether a client gets in."""

    async def attempt() -> bool:
        address = f"{protocol}://127.0.0.1:{guarded.port}"
        try:
            async with Client(address, security=security, asynchronous=True, timeout=2):
                return True
        except (OSError, TimeoutError, ValueError, RuntimeError, TypeError):
            return False

    return asyncio.run(attempt())


def files(ca: Path, cert: Path, key: Path) -> Security:
    return Security(
        tls_ca_file=str(ca),
        tls_client_cert=str(cert),
        tls_client_key=str(key),
        require_encryption=True,
    )


def test_tls__lets_in_its_own_and_no_plain_client(guarded: Guarded) -> None:
    own = guarded.certs
    assert joins(guarded, files(own / "ca.pem", own / "client.pem", own / "client.key"))
    assert not joins(guarded, None, "tcp")


def test_tls__refuses_certificates_of_another_authority(guarded: Guarded, tmp_path: Path) -> None:
    import trustme

    pair = trustme.CA().issue_cert("127.0.0.1")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "stranger.pem")
    pair.private_key_pem.write_to_path(tmp_path / "stranger.key")
    stranger = (tmp_path / "stranger.pem", tmp_path / "stranger.key")
    assert not joins(guarded, files(guarded.certs / "ca.pem", *stranger))
    make_certs(tmp_path / "like", ("127.0.0.1",))
    like = (tmp_path / "like" / "client.pem", tmp_path / "like" / "client.key")
    assert not joins(guarded, files(guarded.certs / "ca.pem", *like))
    file = guarded.place(tmp_path / "place.yaml", tmp_path / "like")
    ended = run_cli("cluster", "check", file, "--workdir", tmp_path / "work")
    assert ended.code == 1
    assert f"no scheduler answers at {guarded.address}" in ended.out


def test_tls__refuses_a_raw_socket(guarded: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as raw:
        raw.sendall(b"\x01" + b"\0" * 63)
        with contextlib.suppress(ConnectionError):
            answer = raw.recv(4096)
            # An alert of TLS, or nothing: never a word of Dask.
            assert answer == b"" or answer[0] == 0x15


def test_tls__refuses_a_raw_tls_socket_without_certificate(guarded: Guarded) -> None:
    context = ssl.create_default_context(cafile=guarded.certs / "ca.pem")
    raw = socket.create_connection(("127.0.0.1", guarded.port), timeout=10)
    try:
        # TLS 1.3 tells the client of its missing certificate with the first read.
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as talking:
            answer = talking.recv(1)
    except (ssl.SSLError, ConnectionError):
        answer = b""
    assert answer == b""


def test_tls__greets_a_raw_socket_with_the_right_certificate(guarded: Guarded) -> None:
    context = ssl.create_default_context(cafile=guarded.certs / "ca.pem")
    context.load_cert_chain(guarded.certs / "client.pem", guarded.certs / "client.key")
    raw = socket.create_connection(("127.0.0.1", guarded.port), timeout=10)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as talking:
        assert len(talking.recv(1)) == 1
