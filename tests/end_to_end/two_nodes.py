"""A cluster of two nodes on this machine: ``python -m tests.end_to_end.two_nodes``.

Says where it is in one line of JSON, and is there until its process group is killed.
"""

import json
import signal

from ray.cluster_utils import Cluster


def main() -> None:
    """Start a head that takes no work and a worker node with two CPUs."""
    plain = {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **plain})
    worker = cluster.add_node(num_cpus=2, **plain)
    place = {"address": cluster.address, "worker": worker.node_id}
    print(json.dumps(place), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
