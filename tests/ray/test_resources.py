"""Resources: defaults that fit the cluster, the user's word above them, and that work can start."""

import pytest

from job.cluster.resources import Cluster, Node


@pytest.mark.usefixtures("ray_session")
def test_ray_is_asked_what_the_cluster_has() -> None:
    assert Cluster.now() == Cluster((Node(2),), head=Node(2))
