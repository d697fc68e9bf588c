"""Ray's fake autoscaling cluster: a real autoscaler, whose new nodes are processes of this machine.

``ray.cluster_utils.AutoscalingCluster`` reads a configuration that Ray's wheel does not have, uses
the default ports, and stops every Ray of the machine; so the head is started here.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FakeMultiNodeProvider,
)

from tests.end_to_end.processes import free_ports, short_directory, started, wait_for

NodeTypes = Mapping[str, tuple[Mapping[str, float], int]]


@dataclass(frozen=True)
class AutoscalingHead:
    """A running head that takes no tasks, and adds worker nodes when somebody asks for them.

    Attributes:
        address: of the cluster, for ``RAY_ADDRESS``.
        config: the file that its autoscaler has read.
        logs: the folder with Ray's logs.
    """

    address: str
    config: Path
    logs: Path


def configuration(types: NodeTypes, gcs: str, idle_minutes: float) -> dict[str, object]:
    """What ``ray up`` would have left on the head of such a cluster."""
    workers = {
        name: {
            "resources": dict(resources),
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        }
        for name, (resources, most) in types.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": sum(most for _, most in types.values()),
        "provider": {
            # By its class: for "fake_multinode" Ray would read defaults from a file that is not in
            # its wheel.
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": gcs,
        },
        "available_node_types": {**workers, "ray.head.default": head},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "auth": {},
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextmanager
def autoscaling_head(
    types: NodeTypes, *, version: int = 2, idle_minutes: float = 0.1
) -> Iterator[AutoscalingHead]:
    """Start such a head, and stop it and all nodes that it has added.

    Args:
        types: for each kind of worker node its resources, and how many there may be.
        version: of Ray's autoscaler.
        idle_minutes: after which a node that nobody needs is ended.
    """
    port = free_ports(10)
    with short_directory() as place:
        gcs = f"{ray.util.get_node_ip_address()}:{port}"
        config = place / "ray_bootstrap_config.yaml"
        config.write_text(json.dumps(configuration(types, gcs, idle_minutes)))
        env = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1" if version == 2 else "0",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            "RAY_AUTH_MODE": "disabled",
        }
        words = [
            f"{Path(sys.executable).parent}/ray",
            *("start", "--head", "--block", "--num-cpus=0"),
            *(f"--autoscaling-config={config}", f"--temp-dir={place}", f"--port={port}"),
            *("--include-dashboard=false", "--disable-usage-stats"),
            *("--min-worker-port=0", "--max-worker-port=0"),
            *(f"--ray-client-server-port={port + 2}", f"--dashboard-agent-listen-port={port + 3}"),
        ]
        with started(words, env) as process:
            logs = place / "session_latest" / "logs"
            wait_for(
                lambda: process.poll() is not None or any(logs.glob("monitor*")),
                90,
                "the autoscaler",
                every=0.2,
            )
            assert process.poll() is None, process.communicate()
            yield AutoscalingHead(gcs, config, logs)
