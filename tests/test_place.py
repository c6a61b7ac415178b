"""Place files: what they may say, and the places they must not open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vehclust_dask.budget import MIB
from vehclust_dask.errors import UsageError, VehclustError
from vehclust_dask.place import (
    WORKER_BASE_BYTES,
    AddressPlace,
    LocalPlace,
    Place,
    cache_bytes,
    check_address,
    free_port,
    load_place,
    local_size,
    open_place,
    place_from,
    scheduler_place,
    show_place,
    tunnel_line,
)
from vehclust_dask.place.slurm import (
    SlurmPlace,
    lifetime,
    private_folder,
    shared_folder,
    slurm_time,
)
from vehclust_dask.store.storage import at

ROOT = Path(__file__).resolve().parents[1]


def place(**content: Any) -> Place:
    return place_from(content, "place.yaml")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "cluster_config").glob("*.yaml")), ids=lambda f: f.name
)
def test_load_place__reads_the_files_of_the_project(file: Path) -> None:
    assert load_place(file).kind == file.stem


def test_load_place__reads_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "place.yaml"
    file.write_text("kind: local\nworkers: 3\nmemory_limit: 1GiB\ndashboard: off\n")
    assert load_place(file) == LocalPlace(workers=3, memory_limit=1024 * MIB, dashboard=None)


def test_place__takes_auto_for_what_the_machine_decides() -> None:
    assert place(workers="auto", memory_limit="auto") == LocalPlace()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"kind": "locale"}, "kind: 'locale': did you mean 'local'"),
        ({"kind": ["local"]}, r"kind: \['local'\]: did you mean 'local'"),
        ({"workrs": 2}, "unknown key 'workrs'; did you mean 'workers'"),
        ({"kind": "local", "address": "tcp://127.0.0.1:1"}, "unknown key 'address'"),
        ({"kind": "address", "workers": 2}, "unknown key 'workers'"),
        ({3: 2}, "unknown key '3'"),
        ({"workers": 0}, "workers: 0: a whole number of at least 1"),
        ({"workers": True}, "workers: True: a whole number"),
        ({"workers": 2.5}, "workers: 2.5: a whole number"),
        ({"memory_limit": "much"}, "memory_limit: 'much' is no size; write it like 1GiB"),
        ({"memory_limit": 0}, "memory_limit: 0 is no positive number"),
        ({"memory_limit": 1.5}, "memory_limit: 1.5: .*write it like 1GiB"),
        ({"memory_limit": True}, "memory_limit: True: .*write it like 1GiB"),
        ({"memory_limit": [1]}, r"memory_limit: \[1\]: .*write it like 1GiB"),
        ({"dashboard": "yes"}, "dashboard: 'yes'"),
        ({"dashboard": 70000}, "dashboard: 70000: .* 65535"),
        ({"local_directory": 3}, "local_directory: 3: str is needed"),
        ({"kind": "address"}, "address is missing; write it like tcp://127.0.0.1:8786"),
        ({"kind": "address", "address": "127.0.0.1:8786"}, "is no address"),
        ({"kind": "address", "address": "tcp://127.0.0.1"}, "is no address"),
        ({"kind": "address", "address": "tcp://127.0.0.1:port"}, "is no address"),
        ({"kind": "address", "address": "http://127.0.0.1:80"}, "is no address"),
        (
            {"kind": "address", "address": "tcp://127.0.0.1:1", "insecure": "yes"},
            "insecure: 'yes': bool",
        ),
        (
            {"kind": "address", "address": "tls://10.0.0.5:8786"},
            "needs tls_ca, tls_cert and tls_key",
        ),
    ],
)
def test_place__refuses_in_one_sentence(content: dict[Any, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        place_from(content, "place.yaml")
    assert str(refused.value).startswith("place.yaml: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"- a\n", "keys such as"), (b"a: [\n", "is no YAML"), (b"\xff\xfe\x00", "is no")],
)
def test_load_place__refuses_a_file_that_is_none(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "place.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        load_place(tmp_path / "place.yaml")


def test_load_place__refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent.yaml: No such file .*see cluster_config/"):
        load_place(tmp_path / "absent.yaml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_address__on_this_machine_needs_no_encryption(host: str) -> None:
    assert scheduler_place(f"tcp://{host}:8786").address == f"tcp://{host}:8786"


@pytest.mark.parametrize(
    "host", ["10.0.0.5", "0.0.0.0", "example.org", "[::]", "127.0.0.1.example.org"]
)
def test_address__beyond_this_machine_needs_a_word(host: str) -> None:
    address = f"tcp://{host}:8786"
    with pytest.raises(UsageError, match="'insecure: true'"):
        scheduler_place(address)
    with pytest.raises(UsageError, match="use tls://"):
        place(kind="address", address=address)
    assert place(kind="address", address=address, insecure=True).insecure


def test_address__with_tls_needs_all_its_files() -> None:
    files = {"tls_ca": "a", "tls_cert": "b", "tls_key": "c"}
    check_address(AddressPlace(address="tls://10.0.0.5:8786", **files), "x")
    for name in files:
        with pytest.raises(UsageError, match="tls_ca, tls_cert and tls_key"):
            check_address(
                AddressPlace(address="tls://10.0.0.5:8786", **files | {name: None}),
                "x",
            )


def test_free_port__takes_the_next_where_one_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        found = free_port(port)
        assert port < found < port + 200
    assert free_port(port) == port


def test_free_port__ends_at_the_last_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        if address[1] > 65535:
            raise OverflowError("port must be 0-65535")
        raise OSError("in use")

    monkeypatch.setattr("socket.socket.bind", refuse, raising=False)
    with pytest.raises(VehclustError, match=r"no port is free from 65500 on; .*dashboard: off"):
        free_port(65500)


def test_local_size__shares_the_machine() -> None:
    import psutil

    workers, limit = local_size(LocalPlace(workers=4))
    assert workers == 4
    assert 0 < 4 * limit <= 0.8 * psutil.virtual_memory().total
    assert local_size(LocalPlace(workers=1, memory_limit=5)) == (1, 5)


@pytest.mark.parametrize("limit", [600 * MIB, 1024 * MIB, 8192 * MIB, 65536 * MIB])
@pytest.mark.parametrize("per_task", [64 * MIB, 200 * MIB])
def test_cache_bytes__leaves_room_for_a_task(limit: int, per_task: int) -> None:
    kept = cache_bytes(limit, per_task)
    assert 64 * MIB <= kept <= 2048 * MIB
    assert kept == 64 * MIB or kept + per_task + WORKER_BASE_BYTES <= limit


def test_tunnel_line__names_the_port_on_both_sides() -> None:
    line = tunnel_line("http://127.0.0.1:8790/status")
    assert line.startswith("ssh -L 8790:127.0.0.1:8790 ")
    assert line.endswith(f"@{socket.gethostname()}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "hosts: name the scheduler's host, then at least one for workers"),
        ({"hosts": ["node1"]}, "hosts: name the scheduler's host"),
        ({"hosts": "node1"}, "a list of words"),
        ({"hosts": ["127.0.0.1", "node2"]}, "node2 is beyond this machine and not encrypted"),
        ({"hosts": ["node1", "node1"], "tls_ca": "a"}, "all of tls_ca, tls_cert and tls_key"),
        ({"hosts": ["a", "b"], "worker_ports": "9100:9000"}, "write it like '9000:9100'"),
        ({"hosts": ["a", "b"], "worker_ports": 9000}, "write it like '9000:9100'"),
        ({"hosts": ["a", "b"], "worker_ports": "1:70000"}, "a port is at most 65535"),
        ({"hosts": ["a", "b"], "code": "sent"}, "'sent': installed or upload is needed"),
        ({"hosts": ["a", "b"], "threads": 2}, "unknown key 'threads'"),
    ],
)
def test_ssh__refuses_in_one_sentence(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        place(kind="ssh", **content)
    assert str(refused.value).startswith("place.yaml: ")


def test_ssh__on_this_machine_listens_on_loopback_and_else_says_so() -> None:
    near = show_place(place(kind="ssh", hosts=["localhost", "127.0.0.1"]))
    assert near.count('"host": "127.0.0.1"') == 2
    far = show_place(place(kind="ssh", hosts=["a", "b"], insecure=True, username="me", ssh_port=23))
    assert '"host"' not in far
    assert '"protocol": "tcp://"' in far
    starts = [line.split()[:4] for line in far.splitlines()]
    assert starts == [["ssh", "-p", "23", "me@a"], ["ssh", "-p", "23", "me@b"]]
    files = {"tls_ca": "a.pem", "tls_cert": "b.pem", "tls_key": "c.key"}
    assert '"protocol": "tls://"' in show_place(place(kind="ssh", hosts=["a", "b"], **files))


def test_address__shows_commands_for_its_hosts() -> None:
    shown = show_place(place(kind="address", address="tcp://127.0.0.1:8786"))
    assert "dask scheduler --host 127.0.0.1 --port 8786 --protocol tcp" in shown
    assert "dask worker tcp://127.0.0.1:8786" in shown
    assert "umask" in shown


def test_tunnel_line__goes_by_the_machine_that_shows_the_dashboard() -> None:
    line = tunnel_line("http://127.0.0.1:8787/status", "me@node1")
    assert line == "ssh -L 8787:127.0.0.1:8787 me@node1"


def test_slurm__writes_nothing_into_a_home(tmp_path: Path) -> None:
    script = "from vehclust_dask.place import SlurmPlace, show_place; show_place(SlurmPlace())"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert not list(tmp_path.rglob("jobqueue.yaml"))


def test_slurm__writes_the_job_that_it_will_submit() -> None:
    script = show_place(
        place(
            kind="slurm",
            workers_per_job=3,
            memory_limit="1GiB",
            walltime="2-01:00:00",
            partition="long",
            account="me",
            extra_directives=["--qos=high"],
            job_script_prologue=["module load python"],
            python="/opt/python",
            interface="lo",
            local_directory="/scratch",
        )
    )
    for line in (
        "#SBATCH -p long",
        "#SBATCH -A me",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=3328M",
        "#SBATCH -t 2-01:00:00",
        "#SBATCH --qos=high",
        "#SBATCH --no-requeue",
        '#SBATCH -o "WORKDIR/logs/worker-%j.log"',
        "module load python",
        "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False",
        "export MALLOC_TRIM_THRESHOLD_=134217728",
    ):
        assert line in script.splitlines()
    (worker,) = [line for line in script.splitlines() if "dask_worker" in line]
    for words in (
        "/opt/python -m distributed.cli.dask_worker tls://",
        "--nthreads 1 --memory-limit 1.00GiB --nworkers 3",
        "--lifetime 175800s --lifetime-stagger 300s",
        "--local-directory /scratch",
        "--interface lo",
        "--tls-key WORKDIR/.private/",
    ):
        assert words in worker


@pytest.mark.parametrize(
    ("keys", "encrypted"),
    [
        ({}, True),
        ({"host": "10.0.0.5"}, True),
        ({"interface": "ib0"}, True),
        ({"insecure": True}, False),
        ({"host": "127.0.0.1"}, False),
        ({"host": "localhost"}, False),
    ],
)
def test_slurm__is_encrypted_wherever_others_could_listen(
    keys: dict[str, Any], encrypted: bool
) -> None:
    script = show_place(place(kind="slurm", python="/opt/python", **keys))
    assert ("--tls-key" in script) == encrypted
    assert ("tls://" in script) == encrypted
    assert ("tcp://" in script) != encrypted


@pytest.mark.parametrize(
    ("seconds", "margin"), [(60, 6), (600, 60), (3600, 360), (6000, 600), (86400, 600)]
)
def test_lifetime__ends_before_the_walltime(seconds: int, margin: int) -> None:
    lives, stagger = lifetime(seconds)
    assert lives == seconds - margin
    assert 0 < stagger < margin


@pytest.mark.parametrize(
    ("words", "seconds"), [("00:00:30", 30), ("01:30:00", 5400), ("2-03:00:01", 183601)]
)
def test_duration__is_read_and_written_as_slurm_does(words: str, seconds: int) -> None:
    assert place(kind="slurm", walltime=words).walltime == seconds
    assert slurm_time(seconds) in (words, f"0-{words}")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"walltime": 3600}, 'walltime: 3600: .*write it like "01:30:00"'),
        ({"walltime": "1h"}, "walltime: '1h'"),
        ({"walltime": "00:00:00"}, "above zero"),
        ({"host": "a", "interface": "b"}, "leave one out"),
        ({"python": "/my env/python"}, "python: '/my env/python' holds a character"),
        ({"job_script_prologue": ["a\nb"]}, "one line per entry"),
        ({"extra_directives": "--qos=x"}, "a list of words"),
        ({"queue": "long"}, "unknown key 'queue'"),
    ],
)
def test_slurm__refuses_in_one_sentence(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        place(kind="slurm", **keys)


def test_slurm__says_where_it_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    opening = open_place(place(kind="slurm"), workdir=tmp_path, per_task=1)
    with pytest.raises(UsageError, match=r"sbatch, squeue, scancel is not .* login node"), opening:
        pass


def test_private_folder__is_private_and_goes_with_what_the_killed_left(tmp_path: Path) -> None:
    left = tmp_path / ".private" / f"{socket.gethostname()}-999999999-x"
    other = tmp_path / ".private" / "elsewhere-999999999-x"
    left.mkdir(parents=True)
    other.mkdir()
    with private_folder(tmp_path) as folder:
        assert {f.stat().st_mode & 0o777 for f in (folder, folder.parent)} == {0o700}
        assert not left.exists()
        assert other.exists()
    assert not folder.exists()


def test_slurm__needs_a_folder_of_the_nodes(tmp_path: Path) -> None:
    url = Path("anything")
    with pytest.raises(UsageError, match="shared_folder in the place file"):
        shared_folder(SlurmPlace(), at("memory://bucket/work"))
    assert shared_folder(SlurmPlace(shared_folder="/shared"), url) == Path("/shared")
    assert shared_folder(SlurmPlace(), tmp_path) == tmp_path
    with pytest.raises(UsageError, match="holds a character"):
        shared_folder(SlurmPlace(), tmp_path / "my work")


def test_open_place__leaves_dasks_settings_as_they_were(tmp_path: Path) -> None:
    script = (
        "import contextlib, dask\n"
        "from pathlib import Path\n"
        "from vehclust_dask.place import AddressPlace, open_place\n"
        "with contextlib.suppress(Exception):\n"
        "    with open_place(AddressPlace(), workdir=Path('.'), per_task=1): pass\n"
        "assert 'tls' in dask.config.get('distributed.comm')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
