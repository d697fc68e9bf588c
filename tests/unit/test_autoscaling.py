"""Autoscaling: the limits of a cluster, from wherever its autoscaler has them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config
from ray.core.generated import autoscaler_pb2

from job.cluster import autoscaling
from job.cluster.autoscaling import Growth, NodeType

ROOT = Path(__file__).resolve().parents[2]


def test_the_cluster_of_this_repository_may_grow_to_eight_gpu_nodes() -> None:
    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    assert autoscaling.growth_of(config) == Growth((NodeType(16, 1, 8),), 8)


def test_a_kind_of_node_is_bounded_by_itself_and_by_the_whole() -> None:
    config = {
        "max_workers": 5,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 4}, "max_workers": 0},
            "few": {"resources": {"CPU": 8}, "max_workers": 2},
            "many": {"resources": {"CPU": 16, "GPU": 4}, "max_workers": 50},
            "unbounded": {"resources": {"GPU": 1}},
            "none": {"resources": {"CPU": 1}, "max_workers": 0},
        },
    }
    kinds = (NodeType(8, 0, 2), NodeType(16, 4, 5), NodeType(0, 1, 5))
    assert autoscaling.growth_of(config) == Growth(kinds, 5)


def test_a_configuration_that_cannot_be_read_is_no_claim(tmp_path: Path) -> None:
    for text in ("", "[]", "{", "available_node_types: 3", "available_node_types: {a: 3}"):
        (tmp_path / "config.yaml").write_text(text)
        assert autoscaling.read_growth(str(tmp_path / "config.yaml")) is None
    assert autoscaling.read_growth(str(tmp_path / "nowhere.yaml")) is None


def test_what_an_autoscaler_has_reported_to_ray_itself_comes_first() -> None:
    reported = autoscaler_pb2.ClusterConfig()  # type: ignore[attr-defined]  # made at run time
    gpus = reported.node_group_configs.add(max_count=3)
    gpus.resources.update({"CPU": 8, "GPU": 2})
    reported.node_group_configs.add(max_count=0).resources.update({"CPU": 64})
    reported.node_group_configs.add(max_count=-1).resources.update({"CPU": 4})
    found = autoscaling._of_report(reported)
    assert found.types[0] == NodeType(8, 2, 3)
    assert [kind.cpus for kind in found.types] == [8, 4]
    assert found.types[1].most == 100, "no bound, and yet not without end"


CLUSTER = {
    "metadata": {"name": "raycluster", "namespace": "team"},
    "spec": {
        "enableInTreeAutoscaling": True,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "4"}}}]}},
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpus",
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": 6,
                "rayStartParams": {},
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "resources": {
                                    "limits": {"cpu": "16", "memory": "8Gi", "nvidia.com/gpu": "1"}
                                }
                            }
                        ]
                    }
                },
            }
        ],
    },
}


class _Kubernetes:
    """What Ray's client of the Kubernetes API asks for, answered as the API would."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        self._answer = answer

    def get(self, path: str) -> dict[str, Any]:
        import requests

        assert path == "rayclusters/raycluster"
        if self._answer is None:
            response = requests.Response()
            response.status_code = 403
            response.raise_for_status()
        return self._answer or {}


@pytest.fixture
def in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment and the files of a pod of KubeRay's."""
    (tmp_path / "namespace").write_text("team")
    monkeypatch.setattr(autoscaling, "_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("RAY_CLUSTER_NAME", "raycluster")
    return monkeypatch


def answering(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None) -> None:
    from ray.autoscaler._private.kuberay import node_provider

    monkeypatch.setattr(node_provider, "KubernetesHttpApiClient", lambda space: _Kubernetes(answer))


def test_kuberay_s_limits_come_from_the_custom_resource(in_a_pod: pytest.MonkeyPatch) -> None:
    answering(in_a_pod, CLUSTER)
    assert autoscaling.find_growth_here("6379") == Growth((NodeType(16, 1, 6),), 6)


def test_a_kuberay_cluster_without_an_autoscaler_does_not_grow(
    in_a_pod: pytest.MonkeyPatch,
) -> None:
    fixed = json.loads(json.dumps(CLUSTER))
    del fixed["spec"]["enableInTreeAutoscaling"]
    answering(in_a_pod, fixed)
    assert autoscaling.find_growth_here("6379") == Growth()


def test_a_pod_that_may_not_read_it_claims_nothing(in_a_pod: pytest.MonkeyPatch) -> None:
    answering(in_a_pod, None)
    assert autoscaling.find_growth_here("6379") is None
    answering(in_a_pod, {"spec": {"enableInTreeAutoscaling": True}})
    assert autoscaling.find_growth_here("6379") is None
