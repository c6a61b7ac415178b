"""Certificates: who may read them, what they are worth, and that none is written over."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tests.components import need_module
from vehclust_dask.errors import Conflict
from vehclust_dask.place.certs import certs_lines, make_certs

NAMES = {
    f"{who}.{end}" for who in ("ca", "scheduler", "worker", "client") for end in ("key", "pem")
}


@pytest.fixture(autouse=True)
def needed() -> None:
    need_module("cryptography", install="pip install 'vehclust-dask[tls]'")


def test_certs__are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = make_certs(tmp_path / "certs", ("localhost", "127.0.0.1"))
    finally:
        os.umask(before)
    assert {file.name for file in files} == NAMES
    assert {file.stat().st_mode & 0o7777 for file in files} == {0o600}
    assert (tmp_path / "certs").stat().st_mode & 0o7777 == 0o700


def test_certs__are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "worker.key").write_text("mine")
    with pytest.raises(Conflict, match=r"worker.key is there already"):
        make_certs(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["worker.key"]
    assert (tmp_path / "worker.key").read_text() == "mine"


def test_certs__convince_a_strict_peer(tmp_path: Path) -> None:
    make_certs(tmp_path, ("node1.example.org",))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "scheduler.pem", tmp_path / "scheduler.key")
    server.load_verify_locations(tmp_path / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    shake(server, client, "node1.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client, "node2.example.org")


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Let two sides meet in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[1].getpeercert()


def test_certs__are_told_how_to_be_used_and_no_key_is_told(tmp_path: Path) -> None:
    make_certs(tmp_path, ("node1",))
    told = "\n".join(certs_lines(tmp_path, ("node1",)))
    assert "--protocol tls" in told
    assert "address: tls://node1:8786" in told
    assert f"tls_key: {tmp_path}/client.key" in told
    for file in tmp_path.glob("*.key"):
        for line in file.read_text().splitlines():
            assert line not in told
