"""Pods of a Kubernetes cluster as a place, started by the operator of dask-kubernetes.

The operator's scheduler listens unencrypted inside the namespace: the file must say that this is meant,
and a NetworkPolicy is made that lets nobody but the pods of the same Dask cluster in.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from vehclust_dask.budget import MIB
from vehclust_dask.errors import UsageError, VehclustError
from vehclust_dask.place.code import code
from vehclust_dask.place.keys import count, flag, key, size, text, texts
from vehclust_dask.place.opened import OpenPlace, close_quietly, look_around

#: Memory of a pod beside its worker: the process that starts and watches it.
NANNY_BYTES = 256 * MIB
SCHEDULER_BYTES = 2048 * MIB
#: Kubernetes' words for names of objects.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: A driver in a pod of its own carries this label to be let in.
DRIVER = "vehclust/driver"
#: The user that cluster_config/Containerfile makes.
USER_ID = 10001


@dataclass(frozen=True)
class KubernetesPlace:
    """Pods, one worker of one thread in each.

    Attributes
    ----------
    image : str
        Built from cluster_config/Containerfile.
    name, namespace : str
    workers, cpu : int
        Pods, and cores of each.
    memory_limit : int
        Bytes of one worker.
    secret_refs : tuple of str
        Names of Secrets whose entries become environment variables of the pods; never their content.
    volume_claim, mount_path : str or None
        A claim that all pods can write at once, and where it is seen: the work folder lies below.
    insecure : bool
        Must be true: Dask is not encrypted between pods.
    code : str
        ``installed`` in the image, or ``upload``: sent from here.
    """

    kind: ClassVar[str] = "kubernetes"
    image: str | None = key(text)
    name: str = key(text, "vehclust")
    namespace: str = key(text, "default")
    workers: int = key(count, 2)
    cpu: int = key(count, 1)
    memory_limit: int = key(size, 2048 * MIB)
    secret_refs: tuple[str, ...] = key(texts, ())
    volume_claim: str | None = key(text)
    mount_path: str | None = key(text)
    insecure: bool = key(flag, False)
    code: str = key(code, "installed")


def check_kubernetes(place: KubernetesPlace, label: str) -> None:
    """Refuse what cannot be, and a place that does not say that it is not encrypted.

    Raises
    ------
    UsageError
    """
    if not place.image:
        raise UsageError(f"{label}: image is missing; build one from cluster_config/Containerfile")
    for one in (place.name, place.namespace, *place.secret_refs):
        if not NAME.fullmatch(one):
            raise UsageError(
                f"{label}: '{one}' is no name of Kubernetes; use small letters, digits and '-'"
            )
    if bool(place.volume_claim) != bool(place.mount_path):
        raise UsageError(f"{label}: volume_claim and mount_path go together; give both or neither")
    if place.mount_path and not place.mount_path.startswith("/"):
        raise UsageError(f"{label}: mount_path: '{place.mount_path}': begin it with /")
    if not place.insecure:
        raise UsageError(
            f"{label}: Dask is not encrypted between pods: whoever reaches them runs code as they do; "
            "say 'insecure: true' in the place file if the namespace is closed, best by the "
            "NetworkPolicy that 'vehclust cluster show' prints"
        )


def manifests(place: KubernetesPlace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the NetworkPolicy and the DaskCluster of a place."""
    from dask_kubernetes.operator import make_cluster_spec

    worker = ["dask", "worker", "--nthreads", "1", "--memory-limit", str(place.memory_limit)]
    cluster = make_cluster_spec(
        place.name,
        image=place.image,
        n_workers=place.workers,
        env=[],
        worker_command=worker,
        idle_timeout=3600,
    )
    cluster["metadata"]["namespace"] = place.namespace
    parts = cluster["spec"]
    # The template calls programs of an older Dask.
    parts["scheduler"]["spec"]["containers"][0]["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    _complete(parts["worker"]["spec"], place, place.cpu, place.memory_limit + NANNY_BYTES)
    _complete(parts["scheduler"]["spec"], place, 1, SCHEDULER_BYTES)
    return _policy(place), cluster


def _complete(pod: dict[str, Any], place: KubernetesPlace, cpu: int, memory: int) -> None:
    """Add to a pod what it may take, what it sees, and what it may not do."""
    (container,) = pod["containers"]
    amounts = {"cpu": str(cpu), "memory": str(memory)}
    container["resources"] = {"requests": amounts, "limits": dict(amounts)}
    container["envFrom"] = [{"secretRef": {"name": name}} for name in place.secret_refs]
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    # The pods run a person's code: they need no word with Kubernetes itself.
    pod["automountServiceAccountToken"] = False
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if place.volume_claim:
        pod["volumes"] = [
            {"name": "work", "persistentVolumeClaim": {"claimName": place.volume_claim}}
        ]
        container["volumeMounts"] = [{"name": "work", "mountPath": place.mount_path}]


def _policy(place: KubernetesPlace) -> dict[str, Any]:
    """Return who may reach the pods: each other, and a driver in a pod that carries the label."""
    ours = {"matchLabels": {"dask.org/cluster-name": place.name}}
    driver = {"matchLabels": {DRIVER: place.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": place.name, "namespace": place.namespace},
        "spec": {
            "podSelector": ours,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": ours}, {"podSelector": driver}]}],
        },
    }


def show_kubernetes(place: KubernetesPlace) -> str:
    """Return the manifests, fit for ``kubectl apply -f -``."""
    _need_operator()
    # By way of JSON: what is written twice is shown twice, not by reference.
    plain = [json.loads(json.dumps(one)) for one in manifests(place)]
    return yaml.safe_dump_all(plain, sort_keys=False).rstrip()


def _need_operator() -> None:
    try:
        import dask_kubernetes.operator  # noqa: F401
    except ImportError:
        raise UsageError(
            "kind: kubernetes needs dask-kubernetes; install it with: "
            "pip install 'vehclust-dask[kubernetes]'"
        ) from None


@contextlib.contextmanager
def start_kubernetes(place: KubernetesPlace, workdir: Path) -> Iterator[OpenPlace]:
    """Ask the operator for a scheduler and workers; they end with the context."""
    from distributed import Client

    _need_operator()
    from dask_kubernetes.operator import KubeCluster
    from kr8s.objects import NetworkPolicy

    policy, spec = manifests(place)
    with contextlib.ExitStack() as closing:
        try:
            door = NetworkPolicy(policy, namespace=place.namespace)
            if not door.exists():
                door.create()
                closing.callback(door.delete)
            cluster = KubeCluster(custom_cluster_spec=spec, namespace=place.namespace, quiet=True)
        except Exception as error:
            # Whatever the client of Kubernetes raises: it has no common class.
            raise VehclustError(
                f"Kubernetes did not start the pods ({type(error).__name__}: {error}); see 'kubectl "
                f"-n {place.namespace} get daskcluster,pods', and whether the operator is installed"
            ) from None
        closing.callback(close_quietly, cluster, 30)
        client = Client(cluster, set_as_default=True)
        closing.callback(close_quietly, client, 5)
        client.wait_for_workers(place.workers, timeout=600)
        yield look_around(client, cluster, place.code, cluster.dashboard_link)
