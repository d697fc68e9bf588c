"""Autoscaling: the limits of a cluster, from wherever its autoscaler has them."""

import pytest

from job.cluster import autoscaling
from job.cluster.autoscaling import Growth


@pytest.mark.usefixtures("ray_session")
def test_a_ray_without_an_autoscaler_is_known_not_to_grow() -> None:
    assert autoscaling.find_growth() == Growth()
    assert autoscaling.describe_launches() == ""
