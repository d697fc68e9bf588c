"""Resources: defaults that fit the cluster, the user's word above them, and that work can start."""

import pytest

from job.config import JobConfig
from job.errors import ConfigError
from job.resources import Cluster, allot

LAPTOP = Cluster(cpus=2, gpus=0, nodes=1)
WORKSTATION = Cluster(cpus=16, gpus=1, nodes=1)
FLEET = Cluster(cpus=64, gpus=8, nodes=8)
CPU_FLEET = Cluster(cpus=64, gpus=0, nodes=4)
ONE = Cluster(cpus=1, gpus=0, nodes=1)
EVERY = [ONE, LAPTOP, WORKSTATION, FLEET, CPU_FLEET]


def config(**options: object) -> JobConfig:
    return JobConfig(input="in", output="out", **options)


def test_every_core_gets_a_predictor_of_one_thread() -> None:
    for cluster in (LAPTOP, CPU_FLEET):
        allotment = allot(config(), cluster, 1_000_000)
        assert (allotment.workers, allotment.threads) == (cluster.cpus, 1)
        assert (allotment.gpus_per_worker, allotment.batch_size) == (0, 16)
        assert allotment.workers * allotment.cpus_per_worker <= cluster.cpus / 2


def test_a_few_images_are_not_worth_many_models() -> None:
    assert allot(config(), CPU_FLEET, 1).workers == 1
    assert 1 <= allot(config(), CPU_FLEET, 100).workers < 64


def test_threads_that_the_user_has_set_share_the_cores() -> None:
    allotment = allot(config(cpus_per_worker=16), CPU_FLEET, 1_000_000)
    assert (allotment.workers, allotment.threads) == (4, 16)


def test_a_gpu_gets_one_predictor_and_large_batches() -> None:
    allotment = allot(config(), WORKSTATION, 1000)
    assert (allotment.workers, allotment.gpus_per_worker) == (1, 1)
    assert allotment.cpus_per_worker == 0, "the CPUs are for decoding"
    assert allotment.batch_size == 32


def test_every_gpu_of_a_fleet_gets_a_predictor() -> None:
    assert allot(config(), FLEET, 100_000).workers == 8
    assert allot(config(gpus_per_worker=0.5), FLEET, 100_000).workers == 16
    assert allot(config(gpus_per_worker=3), FLEET, 100_000).workers == 2


def test_no_gpus_can_be_chosen_where_there_are_some() -> None:
    allotment = allot(config(gpus_per_worker=0), WORKSTATION, 1_000_000)
    assert (allotment.gpus_per_worker, allotment.workers, allotment.batch_size) == (0, 16, 16)


def test_what_the_user_has_set_stays_as_set() -> None:
    options = {
        "workers": 3,
        "cpus_per_worker": 5,
        "batch_size": 7,
        "images_per_task": 4,
        "images_per_file": 9,
    }
    for cluster in EVERY:
        allotment = allot(config(**options), cluster, 1000)
        assert (allotment.workers, allotment.threads, allotment.batch_size) == (3, 5, 7)
        assert (allotment.images_per_task, allotment.images_per_file) == (4, 9)


def test_a_task_has_no_more_images_than_a_file() -> None:
    assert allot(config(images_per_file=3, images_per_task=50), LAPTOP, 1000).images_per_task == 3
    for remaining in (1, 10, 1000, 10_000_000):
        for cluster in EVERY:
            allotment = allot(config(), cluster, remaining)
            most = 4096 if allotment.gpus_per_worker else 512
            assert 1 <= allotment.images_per_task <= allotment.images_per_file <= most


@pytest.mark.parametrize("cluster", EVERY, ids=str)
@pytest.mark.parametrize("workers", [None, 1, 2, 7])
def test_all_stages_fit_in_beside_the_predictors(cluster: Cluster, workers: int | None) -> None:
    allotment = allot(config(workers=workers), cluster, 1000)
    asked = allotment.workers * allotment.cpus_per_worker + sum(
        (allotment.load_cpus, allotment.encode_cpus, allotment.write_cpus)
    )
    assert asked <= cluster.cpus + 1e-9
    assert allotment.workers * allotment.gpus_per_worker <= max(cluster.gpus, workers or 0)


@pytest.mark.parametrize("cluster", EVERY, ids=str)
@pytest.mark.parametrize("workers", [None, 2, 16])
def test_stages_that_ray_could_fuse_ask_for_unequal_cpus(
    cluster: Cluster, workers: int | None
) -> None:
    """Ray fuses tasks with the actors or tasks after them where both ask for the same."""
    allotment = allot(config(workers=workers, gpus_per_worker=0), cluster, 1000)
    assert allotment.load_cpus != allotment.cpus_per_worker
    assert allotment.encode_cpus != allotment.write_cpus


def test_a_cluster_without_cpus_is_named() -> None:
    with pytest.raises(ConfigError, match="no CPUs for tasks; add worker nodes"):
        allot(config(), Cluster(cpus=0, gpus=4, nodes=1), 10)


@pytest.mark.parametrize(("asked", "cluster"), [(1, LAPTOP), (0.5, LAPTOP), (2, WORKSTATION)])
def test_gpus_that_the_cluster_has_not_are_refused(asked: float, cluster: Cluster) -> None:
    pattern = f"--gpus-per-worker {asked:g}: the cluster has {cluster.gpus:g} GPUs.*Use 0"
    with pytest.raises(ConfigError, match=pattern):
        allot(config(gpus_per_worker=asked), cluster, 10)


def test_an_allotment_reads_as_a_line() -> None:
    text = str(allot(config(workers=1, cpus_per_worker=2), LAPTOP, 1000))
    assert text.startswith("1 predictor with 2 threads each, batches of 16, ")
    assert "with 1 thread each" in str(allot(config(), ONE, 1000))
    assert "\n" not in text
    assert str(allot(config(), FLEET, 1000)).startswith("8 predictors with 1 GPU each")


@pytest.mark.usefixtures("ray_session")
def test_ray_is_asked_what_the_cluster_has() -> None:
    assert Cluster.now() == Cluster(cpus=2, gpus=0, nodes=1)
