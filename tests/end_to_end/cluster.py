"""A cluster of several nodes on this machine: ``python -m tests.end_to_end.cluster GPUS CPUS ...``.

Says where it is in one line of JSON, and is there until its process group is killed. For each
SIGUSR1 another node comes, like the last.
"""

import json
import os
import signal
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start a head that takes no work and a worker node for each number of CPUs."""
    plain = {"include_dashboard": False}
    # A node that was killed is missed after five looks: every second, not every third.
    often = {"health_check_period_ms": 1000}
    head = {"num_cpus": 0, "_system_config": often, **plain}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    gpus, *nodes_cpus = map(int, sys.argv[1:])
    nodes = [cluster.add_node(num_cpus=cpus, num_gpus=gpus, **plain) for cpus in nodes_cpus]
    raylet = nodes[-1].all_processes["raylet"][0].process.pid
    more = {signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, more)
    place = {"address": cluster.address, "worker": nodes[-1].node_id, "raylet": raylet}
    print(json.dumps({**place, "cluster": os.getpid()}), flush=True)
    while signal.sigwait(more):
        cluster.add_node(num_cpus=nodes_cpus[-1], num_gpus=gpus, **plain)


if __name__ == "__main__":
    main()
