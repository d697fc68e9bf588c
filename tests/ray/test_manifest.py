"""Manifest: what is listed, in which order it is numbered, and that numbers never change."""

import pytest
import ray

from tests.unit.test_manifest import source_of


@pytest.mark.usefixtures("ray_session")
def test_ray_reads_every_row_once_in_blocks_of_that_size() -> None:
    source = source_of(21, 4)
    dataset = ray.data.read_datasource(source, override_num_blocks=source.tasks).materialize()
    assert sorted(row["id"] for row in dataset.take_all()) == list(range(21))
    assert dataset.num_blocks() == 6
