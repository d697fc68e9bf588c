"""Ray internals: every name of Ray's that is private or undocumented, and what is made of it.

An upgrade of Ray may change any of them without a word. No other module imports one, and
``tests/unit/test_ray_internals.py`` says which Ray they fit and what an upgrade has changed.

What belongs to Ray Data is imported when it is first asked for: most of those who need the rest can
do without the second that it takes.
"""

import contextlib
import importlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME as HEAD_RESOURCE
from ray._common.network_utils import build_address, parse_address
from ray._common.utils import get_default_ray_temp_dir
from ray._private import worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS, GLOBAL_GRPC_OPTIONS
from ray._private.services import (
    _find_address_from_flag,
    find_bootstrap_address,
    find_node_ids,
)
from ray._private.state import state
from ray._private.utils import read_ray_address
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
from ray.experimental.internal_kv import _internal_kv_get

if TYPE_CHECKING:
    from ray.data._internal.execution.execution_callback import ExecutionCallback

__all__ = [
    "HEAD_RESOURCE",
    "RAY_VERSION",
    "ExecutionCallback",
    "Head",
    "ask_head",
    "autoscaler_report",
    "autoscaler_status",
    "build_address",
    "count_actors",
    "end_executors",
    "find_addresses",
    "find_nodes_here",
    "find_noted_address",
    "find_temporary_directory",
    "is_token_sent",
    "kuberay_cluster",
    "kuberay_limits",
    "parse_address",
    "quiet_raylets",
    "reported_limits",
    "take_token",
]

RAY_VERSION = str(ray.__version__)

# Base classes, by the module that has them and their name there.
_OF_RAY_DATA = {
    "ExecutionCallback": (
        "ray.data._internal.execution.execution_callback",
        "ExecutionCallback",
    ),
}

_EXECUTOR = "ray.data._internal.execution.streaming_executor"

# The generated modules make their classes as they are loaded.
_Question = gcs_service_pb2.CheckAliveRequest  # type: ignore[attr-defined]
_NodesQuestion = gcs_service_pb2.GetAllNodeInfoRequest  # type: ignore[attr-defined]
_ALIVE = gcs_pb2.GcsNodeInfo.ALIVE  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    if name not in _OF_RAY_DATA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, name_there = _OF_RAY_DATA[name]
    return getattr(importlib.import_module(module), name_there)


# Which Ray a program is to join


def find_noted_address() -> str | None:
    """The address of the cluster that ``ray start`` has noted last on this machine."""
    address: str | None = find_bootstrap_address(None)
    return address


def find_addresses() -> set[str]:
    """The addresses of all clusters that have a node on this machine, wherever they noted it."""
    folders = _find_address_from_flag("--temp_dir")
    return {address for address in map(read_ray_address, folders) if address}


def find_nodes_here() -> set[str]:
    """The ids of the nodes that run on this machine, of any cluster."""
    return set(find_node_ids())


@dataclass(frozen=True)
class Head:
    """What the head of a cluster says of itself.

    Attributes:
        version: of its Ray; empty when it does not tell.
        nodes: the ids of the cluster's live nodes.
    """

    version: str
    nodes: list[str]


def ask_head(address: str, seconds: float) -> Head:
    """Ask the head of a cluster that this process has not joined.

    Args:
        address: ``host:port``.
        seconds: that each of two answers may take.

    Raises:
        ray.exceptions.AuthenticationError: a token is to be sent, and there is none.
        RuntimeError: TLS is asked for, and its files are not named.
        grpc.RpcError: what listens there refused, did not answer, or is no head.
    """
    with init_grpc_channel(address, options=GLOBAL_GRPC_OPTIONS) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        version = stub.CheckAlive(_Question(), timeout=seconds).ray_version
        reply = stub.GetAllNodeInfo(_NodesQuestion(state_filter=_ALIVE), timeout=seconds)
    return Head(version, [node.node_id.hex() for node in reply.node_info_list])


def take_token() -> None:
    """Send the token in ``~/.ray`` from now on, when there is one and nobody forbids it."""
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def is_token_sent() -> bool:
    """Whether this process sends a token to the clusters that it asks."""
    return bool(is_token_auth_enabled())


# A session of Ray in this process


def find_temporary_directory() -> str:
    """The directory where a Ray of this machine keeps its sockets and logs."""
    return str(get_default_ray_temp_dir())


@contextlib.contextmanager
def quiet_raylets() -> Iterator[None]:
    """Keep what raylets tell drivers off standard output, which ``log_to_driver`` lets through."""
    enabled = worker._worker_logs_enabled
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = enabled


def end_executors(seconds: float) -> None:
    """End whatever Ray Data still executes in this process.

    Args:
        seconds: to wait for each execution's thread to end.
    """
    module = sys.modules.get(_EXECUTOR)
    if module is None:
        return  # this process has executed nothing
    for thread in threading.enumerate():
        if isinstance(thread, module.StreamingExecutor):
            thread.shutdown(force=True)
            thread.join(seconds)


def count_actors(executor: Any) -> tuple[int, int]:
    """Actors of the pools of an execution of Ray Data's: those that are up, and all asked for.

    Args:
        executor: as an :class:`ExecutionCallback` is given it.
    """
    pools = [pool for op in executor._topology for pool in op.get_autoscaling_actor_pools()]
    return (
        sum(pool.num_alive_actors() for pool in pools),
        sum(pool.current_size() for pool in pools),
    )


# What an autoscaler has been told, and does


def reported_limits() -> Any:
    """The limits that an autoscaler has left in the control store of the cluster joined.

    Returns:
        A ``ClusterConfig`` message of Ray's; None when no autoscaler has left any.
    """
    return state.get_cluster_config()


def autoscaler_status(address: str, seconds: int) -> Any:
    """What the second version of Ray's autoscaler is doing.

    Args:
        address: of the cluster's control store.
        seconds: that the answer may take.

    Returns:
        A ``ClusterStatus`` of Ray's.

    Raises:
        RayError, RuntimeError, TimeoutError: there is none, or no answer.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status

    return get_cluster_status(address, timeout=seconds)


def autoscaler_report() -> dict[str, Any]:
    """What the first version of Ray's autoscaler is doing, as it reports it to the cluster joined.

    Raises:
        RayError, ValueError, LookupError, TypeError: there is none.
    """
    reported: dict[str, Any] = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    report: dict[str, Any] = reported["autoscaler_report"]
    return report


def kuberay_cluster(namespace: str, name: str) -> dict[str, Any]:
    """The RayCluster of this pod, as Kubernetes has it.

    Raises:
        requests.RequestException: this pod may not read it, or Kubernetes does not answer.
        OSError: the pod has no credentials for Kubernetes.
    """
    from ray.autoscaler._private.kuberay import node_provider

    cluster: dict[str, Any] = node_provider.KubernetesHttpApiClient(namespace).get(
        f"rayclusters/{name}"
    )
    return cluster


def kuberay_limits(cluster: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the autoscaler that a RayCluster asks for, as ``cluster.yaml`` has it.

    Raises:
        LookupError, TypeError, ValueError: the RayCluster is none.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config

    return autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
