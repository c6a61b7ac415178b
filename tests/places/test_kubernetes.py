"""Manifests of Kubernetes, judged by its own schema, and what they must not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components import need_module
from vehclust_dask.errors import UsageError
from vehclust_dask.place import load_place, place_from, show_place
from vehclust_dask.place.kubernetes import KubernetesPlace, manifests

ROOT = Path(__file__).resolve().parents[2]
FULL = {
    "kind": "kubernetes",
    "image": "registry.example.org/vehclust:1",
    "name": "small",
    "namespace": "me",
    "workers": 3,
    "cpu": 2,
    "memory_limit": "4GiB",
    "secret_refs": ["s3-keys"],
    "volume_claim": "work",
    "mount_path": "/work",
    "insecure": True,
}


@pytest.fixture(autouse=True)
def needed() -> None:
    need_module(
        "dask_kubernetes", "kubernetes_validate", install="pip install 'vehclust-dask[dev]'"
    )


def strictly(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def pods(content: dict[str, Any]) -> list[dict[str, Any]]:
    place = place_from(content, "place.yaml")
    assert isinstance(place, KubernetesPlace)
    _, cluster = manifests(place)
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": who}, "spec": part["spec"]}
        for who in ("worker", "scheduler")
        for part in (cluster["spec"][who],)
    ]


@pytest.mark.parametrize(
    "content", [FULL, {"kind": "kubernetes", "image": "x", "insecure": True}], ids=["full", "least"]
)
def test_manifests__fit_the_schema(content: dict[str, Any]) -> None:
    for pod in pods(content):
        strictly(pod)
    policy, cluster = yaml.safe_load_all(show_place(place_from(content, "place.yaml")))
    strictly(policy)
    service = cluster["spec"]["scheduler"]["service"]
    strictly({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": service})


def test_schema__finds_a_wrong_word() -> None:
    import kubernetes_validate

    pod = pods(FULL)[0]
    pod["spec"]["containers"][0]["memroy"] = "1Gi"
    with pytest.raises(kubernetes_validate.ValidationError):
        strictly(pod)


def test_manifests__say_what_the_file_says() -> None:
    worker, scheduler = pods(FULL)
    (container,) = worker["spec"]["containers"]
    assert container["image"] == FULL["image"]
    assert container["args"][:6] == [
        "dask",
        "worker",
        "--nthreads",
        "1",
        "--memory-limit",
        str(4 << 30),
    ]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": str((4 << 30) + (256 << 20))}
    for pod in (worker, scheduler):
        (one,) = pod["spec"]["containers"]
        assert one["volumeMounts"] == [{"name": "work", "mountPath": "/work"}]
        assert one["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
        assert not one["env"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not pod["spec"]["automountServiceAccountToken"]
    assert scheduler["spec"]["containers"][0]["args"][:2] == ["dask", "scheduler"]


def test_policy__lets_in_pods_of_this_dask_cluster_and_a_named_driver() -> None:
    policy, cluster = yaml.safe_load_all(show_place(place_from(FULL, "place.yaml")))
    assert policy["metadata"] == cluster["metadata"] == {"name": "small", "namespace": "me"}
    ours = {"podSelector": {"matchLabels": {"dask.org/cluster-name": "small"}}}
    driver = {"podSelector": {"matchLabels": {"vehclust/driver": "small"}}}
    assert policy["spec"]["ingress"] == [{"from": [ours, driver]}]
    assert policy["spec"]["podSelector"] == ours["podSelector"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_manifests__hold_no_secret_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "DASK_GATEWAY__AUTH__TOKEN", "ANYTHING"):
        monkeypatch.setenv(name, "hush-hush")
    assert "hush-hush" not in show_place(place_from(FULL, "place.yaml"))
    assert "hush-hush" not in json.dumps(pods(FULL))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"insecure": False}, "not encrypted between pods.*'insecure: true'.*NetworkPolicy"),
        ({"image": None}, "image is missing"),
        ({"name": "Small"}, "'Small' is no name of Kubernetes"),
        ({"secret_refs": ["KEY=value"]}, "'KEY=value' is no name"),
        ({"volume_claim": None}, "volume_claim and mount_path go together"),
        ({"mount_path": "work"}, "begin it with /"),
        ({"env": {"A": "b"}}, "unknown key 'env'"),
    ],
)
def test_kubernetes__refuses_in_one_sentence(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        place_from(FULL | change, "place.yaml")


def test_containerfile__runs_our_wheel_as_nobody_special() -> None:
    text = (ROOT / "cluster_config" / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    words = {line[0] for line in lines}
    assert words <= {"FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV"}
    assert lines[0][0] == "FROM"
    assert [rest for word, rest in lines if word == "USER"] == ["10001"]
    assert any(w == "COPY" and "vehclust_dask-*.whl" in rest for w, rest in lines)
    assert any(w == "RUN" and "pip install" in r and "vehclust_dask-*.whl" in r for w, r in lines)
    place = load_place(ROOT / "cluster_config" / "kubernetes.yaml")
    assert isinstance(place, KubernetesPlace)
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in pods(FULL)} == {10001}
