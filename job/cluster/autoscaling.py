"""Autoscaling: the nodes that a cluster may add by itself, as its autoscaler has been told."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.cluster.ray_internals import (
    HEAD_RESOURCE,
    autoscaler_report,
    autoscaler_status,
    kuberay_cluster,
    kuberay_limits,
    reported_limits,
)

# Seconds that the head may take to answer what its autoscaler has been told.
_ANSWER = 60.0
# Nodes of a kind to count on where the autoscaler has been given no bound: all are asked for at
# once, and paid for.
_UNBOUNDED = 100
# What KubeRay gives every container of a pod, and Kubernetes every pod.
_KUBERAY_NAME = "RAY_CLUSTER_NAME"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler starts.

    Attributes:
        cpus: logical CPUs of one such node.
        gpus: GPUs of one such node.
        most: nodes of this kind at a time, those that are there included.
    """

    cpus: float
    gpus: float
    most: int


@dataclass(frozen=True)
class Growth:
    """What a cluster may grow to.

    Attributes:
        types: the kinds of nodes that its autoscaler starts; none in a cluster without one.
        most_nodes: nodes of all kinds together, the head not counted.
    """

    types: tuple[NodeType, ...] = ()
    most_nodes: int = 0


def find_growth() -> Growth | None:
    """What the cluster that this process is connected to may grow to.

    Ray keeps a place for it in its control store, which only some autoscalers fill. Others know
    it from a file on the head (``ray up``) or from Kubernetes, so the head is asked.

    Returns:
        None when there may be an autoscaler whose limits nobody here can read.
    """
    reported = reported_limits()
    if reported is not None and reported.node_group_configs:
        return _of_report(reported)
    here = ray.get_runtime_context()
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and is_head(node)]
    port = here.gcs_address.rpartition(":")[2]
    if not heads:
        return None
    if heads[0] == here.get_node_id():
        return find_growth_here(port)
    on_head = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    asked = ray.remote(num_cpus=0)(find_growth_here).options(scheduling_strategy=on_head)
    try:
        answer: Growth | None = ray.get(asked.remote(port), timeout=_ANSWER)
    except (ray.exceptions.RayError, TimeoutError):
        return None
    return answer


def is_head(node: Mapping[str, Any]) -> bool:
    """Whether a node, as ``ray.nodes()`` describes it, is the cluster's head."""
    return HEAD_RESOURCE in node["Resources"]


def find_growth_here(port: str) -> Growth | None:
    """What the autoscaler on this machine, a cluster's head, has been told.

    Args:
        port: of the cluster's control store: several clusters may share a machine.
    """
    if os.environ.get("KUBERNETES_SERVICE_HOST") and os.environ.get(_KUBERAY_NAME):
        return _of_kuberay(os.environ[_KUBERAY_NAME])
    for words in _monitors():
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if options.get("--gcs-address", "").endswith(f":{port}"):
            file = options.get("--autoscaling-config")
            return read_growth(file) if file else Growth()
    return Growth()


def _monitors() -> Iterator[list[str]]:
    """The command lines of Ray's autoscalers on this machine, of either version."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any(word.endswith("monitor.py") and "autoscaler" in word for word in words):
                yield words


def read_growth(name: str) -> Growth | None:
    """What a cluster's configuration, as ``ray up`` leaves it on the head, lets it grow to."""
    try:
        return growth_of(yaml.safe_load(Path(name).expanduser().read_text()))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError):
        return None


def growth_of(config: Mapping[str, Any]) -> Growth:
    """What the configuration of Ray's autoscaler, ``cluster.yaml`` among them, lets it grow to."""
    everything = int(config.get("max_workers", 0))
    types = []
    for name, described in config["available_node_types"].items():
        most = min(int(described.get("max_workers", everything)), everything)
        if name == config.get("head_node_type") or most <= 0:
            continue
        resources = described.get("resources") or {}
        cpus, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
        types.append(NodeType(cpus, gpus, most))
    return Growth(tuple(types), everything)


def _of_report(reported: Any) -> Growth:
    types = [
        NodeType(
            float(group.resources.get("CPU", 0)),
            float(group.resources.get("GPU", 0)),
            _UNBOUNDED if group.max_count < 0 else group.max_count,
        )
        for group in reported.node_group_configs
        if group.max_count
    ]
    return Growth(tuple(types), sum(kind.most for kind in types))


def _of_kuberay(name: str) -> Growth | None:
    """What the RayCluster of this pod says; None where this pod may not read it."""
    import requests

    try:
        cluster = kuberay_cluster(_NAMESPACE.read_text().strip(), name)
        if not cluster["spec"].get("enableInTreeAutoscaling"):
            return Growth()
        return growth_of(kuberay_limits(cluster))
    except (requests.RequestException, OSError, LookupError, TypeError, ValueError):
        return None


def describe_launches() -> str:
    """What an autoscaler is doing about nodes that do not work yet, in words; empty for nothing.

    Both versions of Ray's autoscaler are asked; the one that is not there has nothing to say.
    """
    coming, failed = 0, ""
    with contextlib.suppress(ray.exceptions.RayError, RuntimeError, TimeoutError):
        status = autoscaler_status(ray.get_runtime_context().gcs_address, seconds=5)
        coming += sum(launch.count for launch in status.pending_launches)
        coming += len(status.pending_nodes)
        for launch in status.failed_launches:
            failed = launch.details or launch.ray_node_type_name
    with contextlib.suppress(ray.exceptions.RayError, ValueError, LookupError, TypeError):
        report = autoscaler_report()
        coming += sum(report["pending_launches"].values()) + len(report["pending_nodes"])
    said = [f"{coming} node{'s' if coming > 1 else ''} starting up"] if coming else []
    if failed:
        said.append(f"a node could not be started ({' '.join(failed.split())[:200]})")
    return "; ".join(said)
