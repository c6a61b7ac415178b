"""Certificates for a Dask cluster of one's own: an authority, and one pair each for three roles."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vehclust_dask.errors import Conflict, UsageError

ROLES = ("scheduler", "worker", "client")
#: Long enough for a project, short enough that a lost key ends some day.
VALID_DAYS = 365


def make_certs(folder: Path, hosts: tuple[str, ...] = ()) -> list[Path]:
    """Make an authority and certificates of scheduler, worker and client.

    Whoever holds a pair signed by the authority may command the Dask cluster. Files are for their owner
    alone, and none is ever written over.

    Parameters
    ----------
    folder : Path
        Made if need be, for its owner alone.
    hosts : tuple of str
        Names or addresses to write into the certificates.

    Returns
    -------
    list of Path
        ca.key, ca.pem, then key and certificate of every role.

    Raises
    ------
    UsageError
        If the package cryptography is missing.
    Conflict
        If one of the files is there.
    """
    x509 = _cryptography()
    names = [folder / f"{who}.{end}" for who in ("ca", *ROLES) for end in ("key", "pem")]
    for file in names:
        if file.exists():
            raise Conflict(f"{file} is there already and is not written over; give another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = _key()
    issuer = _name(x509, "vehclust authority")
    root = _certificate(x509, issuer, issuer, authority, authority, hosts=None)
    contents = [_private(authority), _public(root)]
    for role in ROLES:
        key = _key()
        signed = _certificate(
            x509, _name(x509, f"vehclust {role}"), issuer, key, authority, hosts=hosts
        )
        contents += [_private(key), _public(signed)]
    for file, content in zip(names, contents, strict=True):
        _write_private(file, content)
    return names


def _cryptography() -> Any:
    try:
        from cryptography import x509
    except ImportError:
        raise UsageError(
            "certificates need the package cryptography; install it with: "
            "pip install 'vehclust-dask[tls]'"
        ) from None
    return x509


def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(x509: Any, words: str) -> Any:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, words)])


def _certificate(
    x509: Any, subject: Any, issuer: Any, key: Any, signer: Any, *, hosts: tuple[str, ...] | None
) -> Any:
    """Return a certificate; ``hosts`` is None for the authority itself."""
    from cryptography.hazmat.primitives import hashes

    # Clocks of hosts differ a little.
    begin = datetime.now(UTC) - timedelta(hours=1)
    authority = hosts is None
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if hosts:
        made = made.add_extension(
            x509.SubjectAlternativeName([_host(x509, host) for host in hosts]), critical=False
        )
    return made.sign(signer, hashes.SHA256())


def _host(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    content: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return content


def _public(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    content: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return content


def _write_private(file: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read, whatever the umask."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(content)


def certs_lines(folder: Path, hosts: tuple[str, ...] = ()) -> list[str]:
    """Return how the files are used: commands of scheduler and workers, lines of a place file."""
    host = hosts[0] if hosts else "SCHEDULER_HOST"
    where = folder.resolve()
    return [
        f"# on {host}, with ca.pem and scheduler.* (ca.key stays here):",
        f"umask 027; dask scheduler --host {host} --port 8786 --protocol tls --tls-ca-file "
        f"{where}/ca.pem --tls-cert {where}/scheduler.pem --tls-key {where}/scheduler.key "
        "--dashboard-address 127.0.0.1:8787",
        "# on every worker's host, with ca.pem and worker.*:",
        f"umask 027; dask worker tls://{host}:8786 --nthreads 1 --nworkers 4 --memory-limit 4GiB "
        f"--tls-ca-file {where}/ca.pem --tls-cert {where}/worker.pem --tls-key {where}/worker.key "
        "--dashboard-address 127.0.0.1:0",
        "# the place file here:",
        "kind: address",
        f"address: tls://{host}:8786",
        f"tls_ca: {where}/ca.pem",
        f"tls_cert: {where}/client.pem",
        f"tls_key: {where}/client.key",
    ]
