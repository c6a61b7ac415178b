"""A real sshd on loopback, with a configuration and keys of its own, that starts a Dask cluster."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.components import need_command, need_module, need_root
from tests.end_to_end.conftest import digests, run_cli
from tests.places.conftest import free_port, listening, until

pytestmark = pytest.mark.cluster
CONF = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/mine.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
SetEnv {environment}
"""


@dataclass(frozen=True)
class Sshd:
    """A running sshd and the files that open it."""

    folder: Path
    port: int
    pid: int

    def place(self, file: Path, *more: str, key: str = "mine") -> Path:
        """Write a place of two workers."""
        lines = [
            "kind: ssh",
            "hosts: [127.0.0.1, 127.0.0.1]",
            "workers_per_host: 2",
            "memory_limit: 1GiB",
            f"username: {getpass.getuser()}",
            f"ssh_port: {self.port}",
            f"client_keys: [{self.folder / key}]",
            f"dashboard: {free_port()}",
            *more,
        ]
        file.write_text("\n".join(lines) + "\n")
        return file

    @property
    def known(self) -> str:
        """Return the line of a place file that names the list of known hosts."""
        return f"known_hosts: {self.folder / 'known'}"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Start sshd."""
    need_command("sshd", "ssh-keygen", install="apt-get install openssh-server")
    need_module("asyncssh", install="pip install 'vehclust-dask[ssh]'")
    need_root("sshd")
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "mine", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    public = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "other").write_text(f"[127.0.0.1]:{port} {(folder / 'stranger.pub').read_text()}")
    project = Path(__file__).resolve().parents[2]
    # sshd starts with a clean environment; the kernels of BLAS must be those of the local place.
    same = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    environment = " ".join(f"{k}={v}" for k, v in ({"PYTHONPATH": project} | same).items())
    conf = CONF.format(port=port, folder=folder, environment=environment)
    (folder / "conf").write_text(conf)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = str(shutil.which("sshd"))
    running = subprocess.Popen(
        [program, "-D", "-e", "-f", folder / "conf"], stderr=subprocess.DEVNULL
    )
    until(lambda: listening(port), "an sshd")
    yield Sshd(folder, port, running.pid)
    running.terminate()
    running.wait(10)


def started(sshd: Sshd) -> list[int]:
    """Return Dask's processes that this sshd started and that still run."""
    below = psutil.Process(sshd.pid).children(recursive=True)
    return [p.pid for p in below if "distributed.cli.dask_spec" in _cmdline(p)]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_ssh__runs_the_job_and_gives_the_same_bytes(
    sshd: Sshd, job: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    assert started(sshd) == []
    file = sshd.place(tmp_path / "place.yaml", sshd.known)
    ended = run_cli("run", job, "--workdir", tmp_path / "work", "--cluster", file)
    assert ended.code == 0, ended.err
    assert digests(tmp_path / "work") == expected
    assert re.search(r"dashboard  http://127\.0\.0\.1:\d+/status", ended.err)
    until(lambda: not started(sshd), "the end of what ssh started")


def test_ssh__refuses_a_host_that_is_another(sshd: Sshd, tmp_path: Path) -> None:
    lines = f"known_hosts: {sshd.folder / 'other'}"
    file = sshd.place(tmp_path / "place.yaml", lines)
    ended = run_cli("cluster", "check", file, "--workdir", tmp_path / "work")
    assert ended.code == 1
    assert "ssh to one of 127.0.0.1 failed" in ended.out
    assert "known_hosts" in ended.out


def test_ssh__refuses_a_key_that_opens_nothing(sshd: Sshd, tmp_path: Path) -> None:
    file = sshd.place(tmp_path / "place.yaml", sshd.known, key="stranger")
    ended = run_cli("cluster", "check", file, "--workdir", tmp_path / "work")
    assert ended.code == 1
    assert "ssh to one of 127.0.0.1 failed" in ended.out
    assert "PRIVATE" not in ended.out + ended.err


def test_ssh__says_which_interpreter_does_not_start(sshd: Sshd, tmp_path: Path) -> None:
    file = sshd.place(tmp_path / "place.yaml", sshd.known, "remote_python: /no/such/python")
    ended = run_cli("cluster", "check", file, "--workdir", tmp_path / "work")
    assert ended.code == 1
    assert "/no/such/python -m distributed.cli.dask_spec" in ended.out
