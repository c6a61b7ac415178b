"""Workers, hosts, links and the scheduler are lost while a job runs: the same bytes in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.components import need_command, need_root
from tests.end_to_end.conftest import Case, command, digests
from tests.faults.hosts import Driver, Hosts, kill, worker_of
from vehclust_dask.job.run import list_runs

pytestmark = pytest.mark.cluster

WORKERS = ("one", "two", "three")
STUDIES = """
studies:
  osnet:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: [2, 3, 8], n_init: 2, tol: 0}
      ward: {method: ward, n_clusters: [2, 6], n_neighbors: 8}
    featured: km/3
"""


@dataclass
class Cluster:
    """Dask on three hosts, a job for it, and the run that nobody disturbed."""

    hosts: Hosts
    job: Path
    place: Path
    digests: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = self.hosts.start_scheduler()
        self.nannies = {name: self.hosts.start_worker(name) for name in WORKERS}

    def whole_again(self) -> None:
        """Start what was lost."""
        if self.scheduler.poll() is not None:
            self.scheduler = self.hosts.start_scheduler()
        for name, nanny in self.nannies.items():
            if nanny.poll() is not None:
                self.nannies[name] = self.hosts.start_worker(name)
        self.hosts.wait_for_workers(len(WORKERS))

    def begin(self, workdir: Path, **env: str) -> Driver:
        """Start the job on the driver's host."""
        words = ("run", self.job, "--workdir", workdir, "--cluster", self.place)
        return Driver(self.hosts.inside("driver", *command(*words)), **env)


@pytest.fixture(scope="module")
def cluster(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_root("network namespaces")
    need_command("ip", install="apt-get install iproute2")
    folder = tmp_path_factory.mktemp("hosts")
    hosts = Hosts(folder)
    try:
        hosts.build()
        place = folder / "place.yaml"
        place.write_text(f"kind: address\naddress: {hosts.address}\ninsecure: true\n")
        job = case.job(folder / "main.yaml", studies=STUDIES)
        made = Cluster(hosts, job, place)
        made.whole_again()
        began = time.monotonic()
        one = made.begin(folder / "work")
        assert one.wait() == 0, one.err
        made.seconds = time.monotonic() - began
        made.digests = digests(folder / "work")
        one.close()
        yield made
    finally:
        hosts.close()


@pytest.fixture
def begin(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start the job in a work folder of its own, on a cluster that is whole."""
    cluster.whole_again()
    begun: list[Driver] = []

    def start(**env: str) -> Driver:
        begun.append(cluster.begin(tmp_path / "work", **env))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


def among_passes(one: Driver, workdir: Path) -> None:
    """Wait until k-means is under way."""
    one.until(lambda: any(workdir.glob("steps/kmeans-*.partial")), "k-means")


def told(one: Driver) -> str:
    """Return the one sentence of a command that failed."""
    assert "Traceback" not in one.err, one.err
    (line,) = [line for line in one.err.splitlines() if line.startswith("vehclust: ")]
    return line


@pytest.mark.parametrize("loss", ["worker", "nanny and worker", "link"])
def test_job__goes_on_without_a_worker(
    loss: str, cluster: Cluster, begin: Callable[..., Driver], tmp_path: Path
) -> None:
    one = begin()
    among_passes(one, tmp_path / "work")
    lost, began = cluster.nannies["two"], time.monotonic()
    if loss == "worker":
        worker_of(lost).kill()
    elif loss == "link":
        cluster.hosts.link("two", "down")
    else:
        kill(lost)
    code = one.wait()
    took = time.monotonic() - began
    if loss == "link":
        cluster.hosts.link("two", "up")
        kill(lost)
    print(f"\n{loss} lost: ended {took:.1f} s later; undisturbed, all: {cluster.seconds:.1f} s")
    assert code == 0, one.err
    assert "Traceback" not in one.err
    assert digests(tmp_path / "work") == cluster.digests


def test_job__ends_with_its_scheduler_and_goes_on_with_another(
    cluster: Cluster, begin: Callable[..., Driver], tmp_path: Path
) -> None:
    one = begin()
    among_passes(one, tmp_path / "work")
    began = time.monotonic()
    kill(cluster.scheduler)
    code = one.wait()
    print(f"\nscheduler lost: the driver ended {time.monotonic() - began:.1f} s later")
    assert code == 1, one.err
    assert "the scheduler was lost" in told(one)
    assert "finished work is kept" in told(one)
    assert list_runs(tmp_path / "work") == []
    for nanny in cluster.nannies.values():
        kill(nanny)
    cluster.whole_again()
    again = begin()
    assert again.wait() == 0, again.err
    assert "already converted" in again.err
    assert digests(tmp_path / "work") == cluster.digests


def test_job__does_not_wait_for_ever_for_workers(
    cluster: Cluster, begin: Callable[..., Driver], tmp_path: Path
) -> None:
    one = begin(DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT="4s")
    among_passes(one, tmp_path / "work")
    began = time.monotonic()
    for nanny in cluster.nannies.values():
        kill(nanny)
    code = one.wait()
    print(f"\nall workers lost: the driver ended {time.monotonic() - began:.1f} s later")
    assert code == 1, one.err
    assert "no worker was left for 4 s; start workers and run again" in told(one)
