"""Ray's commits: Ray Data is set up for one write, and left as it was."""

import pytest
import ray

from job.outputs.ray_commits import committing
from job.storage.location import Location


def test_the_setting_of_ray_data_is_put_back(output: Location) -> None:
    before = ray.data.DataContext.get_current().checkpoint_config
    with committing(output):
        assert ray.data.DataContext.get_current().checkpoint_config is not before
    assert ray.data.DataContext.get_current().checkpoint_config is before
    with pytest.raises(KeyError), committing(output):
        raise KeyError
    assert ray.data.DataContext.get_current().checkpoint_config is before
