"""Resources: defaults that fit the cluster, the user's word above them, and that work can start."""

import pytest

from job.cluster.autoscaling import Growth, NodeType
from job.cluster.resources import Cluster, Node, plan_resources
from job.config import JobConfig, load
from job.errors import ConfigError

ONE = Cluster((Node(1),))


LAPTOP = Cluster((Node(2),))


WORKSTATION = Cluster((Node(16, 1),))


FLEET = Cluster((Node(8, 1),) * 8)


CPU_FLEET = Cluster((Node(16),) * 4)


EVERY = [ONE, LAPTOP, WORKSTATION, FLEET, CPU_FLEET]


SPOT_GPUS = Growth((NodeType(cpus=16, gpus=1, most=8),), 8)


# cluster.yaml's: a head that takes no tasks, and nothing else until a job asks.
ASLEEP = Cluster((), SPOT_GPUS, head=Node(0, id="head"))


def config(**options: object) -> JobConfig:
    return JobConfig(input="in", output="out", **options)


def test_every_core_gets_a_predictor_of_one_thread_and_has_it_to_itself() -> None:
    for cluster in (LAPTOP, CPU_FLEET):
        resources = plan_resources(config(), cluster, 1_000_000)
        assert (resources.workers, resources.threads) == (cluster.cpus, 1)
        assert (resources.gpus_per_worker, resources.batch_size) == (0, 16)
        assert resources.cpus_per_worker == 1


def test_a_few_images_are_not_worth_many_models() -> None:
    assert plan_resources(config(), CPU_FLEET, 1).workers == 1
    assert 1 <= plan_resources(config(), CPU_FLEET, 100).workers < 64
    assert plan_resources(config(), ASLEEP, 10).workers == 1
    assert plan_resources(config(), ASLEEP, 3000).workers == 3, (
        "a node to come is paid for by the minute"
    )
    assert plan_resources(config(), FLEET, 3000).workers == 8, "those that are here are not"
    assert plan_resources(config(workers=8), ASLEEP, 100).workers == 8


def test_threads_that_the_user_has_set_share_the_cores_of_a_node() -> None:
    resources = plan_resources(config(cpus_per_worker=16), CPU_FLEET, 1_000_000)
    assert (resources.workers, resources.threads) == (4, 16)
    assert plan_resources(config(cpus_per_worker=12), CPU_FLEET, 1_000_000).workers == 4


def test_a_gpu_gets_one_predictor_and_large_batches() -> None:
    resources = plan_resources(config(), WORKSTATION, 1000)
    assert (resources.workers, resources.gpus_per_worker) == (1, 1)
    assert resources.cpus_per_worker == 0, "the CPUs are for decoding"
    assert resources.loads_apart
    assert resources.batch_size == 32


def test_every_gpu_of_a_fleet_gets_a_predictor() -> None:
    assert plan_resources(config(), FLEET, 100_000).workers == 8
    assert plan_resources(config(gpus_per_worker=0.5), FLEET, 100_000).workers == 16


def test_no_gpus_can_be_chosen_where_there_are_some() -> None:
    resources = plan_resources(config(gpus_per_worker=0), WORKSTATION, 1_000_000)
    assert (resources.gpus_per_worker, resources.workers, resources.batch_size) == (0, 16, 16)
    assert resources.cpus_per_worker == 1
    assert not resources.loads_apart


def test_what_the_user_has_set_stays_as_set() -> None:
    options = {
        "workers": 3,
        "cpus_per_worker": 4,
        "batch_size": 7,
        "images_per_task": 4,
        "images_per_file": 9,
    }
    for cluster in (WORKSTATION, FLEET, CPU_FLEET):
        resources = plan_resources(config(gpus_per_worker=0, **options), cluster, 1000)
        assert (resources.workers, resources.threads, resources.batch_size) == (3, 4, 7)
        # A file has whole tasks.
        assert (resources.images_per_task, resources.images_per_file) == (4, 12)


def test_more_workers_than_there_is_room_for_are_as_many_as_there_is_room_for() -> None:
    assert plan_resources(config(workers=7), LAPTOP, 1000).workers == 2
    assert plan_resources(config(workers=70), ASLEEP, 100_000).workers == 8


def test_a_task_has_no_more_images_than_a_file() -> None:
    assert (
        plan_resources(config(images_per_file=3, images_per_task=50), LAPTOP, 1000).images_per_task
        == 3
    )
    for remaining in (1, 10, 1000, 10_000_000):
        for cluster in EVERY:
            resources = plan_resources(config(), cluster, remaining)
            most = 4096 if resources.gpus_per_worker else 512
            assert 1 <= resources.images_per_task <= resources.images_per_file <= most
            assert resources.images_per_file % resources.images_per_task == 0


@pytest.mark.parametrize("cluster", EVERY, ids=str)
@pytest.mark.parametrize("workers", [None, 1, 2, 7])
@pytest.mark.parametrize("gpus", [None, 0])
def test_what_a_job_holds_is_enough_for_it_to_go_on(
    cluster: Cluster, workers: int | None, gpus: float | None
) -> None:
    """Nothing is left to ask for once predictors run: or tasks do that end by themselves."""
    resources = plan_resources(config(workers=workers, gpus_per_worker=gpus), cluster, 1000)
    if resources.loads_apart:
        assert resources.cpus_per_worker == 0, "predictors leave all CPUs to the loading tasks"
        assert resources.load_cpus <= cluster.cpus
    assert resources.workers * resources.cpus_per_worker <= cluster.cpus
    assert resources.workers * resources.gpus_per_worker <= cluster.gpus


def test_on_a_sleeping_cluster_all_that_may_come_is_asked_for() -> None:
    resources = plan_resources(config(), ASLEEP, 1_000_000)
    assert (resources.workers, resources.workers_now) == (8, 0)
    assert (resources.gpus_per_worker, resources.load_cpus) == (1, 0.5)
    assert str(resources).startswith("up to 8 predictors with 1 GPU each")
    assert resources.images_per_file == 4096


def test_tasks_that_ask_for_nothing_are_kept_off_a_head_that_takes_no_tasks() -> None:
    assert plan_resources(config(), ASLEEP, 100).placement == {
        "label_selector": {"ray.io/node-id": "!head"}
    }
    assert plan_resources(config(), LAPTOP, 100).placement == {}


def test_gpus_that_may_come_count_more_than_cpus_that_are_here() -> None:
    cluster = Cluster((Node(16), Node(16)), Growth((NodeType(16, 0, 2), NodeType(8, 1, 2)), 4))
    resources = plan_resources(config(), cluster, 1_000_000)
    assert (resources.workers, resources.gpus_per_worker) == (2, 1)


def test_one_node_of_several_that_may_come_does_not_decide_for_good() -> None:
    cluster = Cluster((Node(16, 1),), SPOT_GPUS)
    resources = plan_resources(config(), cluster, 1_000_000)
    assert (resources.workers, resources.workers_now) == (8, 1)
    assert "up to 8 predictors" in str(resources)


def test_a_head_that_takes_tasks_is_none_of_the_nodes_that_may_come() -> None:
    head = Node(16, 1)
    cluster = Cluster((head,), Growth((NodeType(16, 1, 1),), 1), head)
    assert cluster.fits(0, 1) == 2
    assert cluster.fits(1, 0) == 32
    both = Cluster((head, Node(16, 1)), Growth((NodeType(16, 1, 1),), 1), head)
    assert both.fits(0, 1) == 2


def test_all_nodes_together_may_be_fewer_than_those_of_each_kind() -> None:
    growth = Growth((NodeType(16, 1, 8), NodeType(96, 8, 8)), 9)
    assert Cluster((), growth).fits(0, 1) == 8 * 8 + 1


def test_where_nobody_knows_what_may_come_what_is_asked_for_is_believed() -> None:
    unknown = Cluster((), growth=None)
    resources = plan_resources(config(workers=8, gpus_per_worker=1), unknown, 1_000_000)
    assert (resources.workers, resources.workers_now, resources.gpus_per_worker) == (8, 0, 1)
    assert plan_resources(config(gpus_per_worker=2), unknown, 1_000_000).workers == 1
    assert plan_resources(config(), unknown, 1_000_000).workers == 1


def test_a_cluster_without_cpus_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no CPUs for tasks, and it adds none by itself\. Add"):
        plan_resources(config(), Cluster(()), 10)
    with pytest.raises(ConfigError, match="GPUs but no CPUs for the tasks that load images"):
        plan_resources(config(), Cluster((Node(0, 4),)), 10)


@pytest.mark.parametrize(
    ("asked", "cluster", "has"),
    [
        (1, LAPTOP, "the largest node has 2 CPUs, and it adds none by itself"),
        (0.5, LAPTOP, "the largest node has 2 CPUs"),
        (2, WORKSTATION, "the largest node has 1 GPU, 16 CPUs"),
        (2, FLEET, "the largest node has 1 GPU, 8 CPUs"),
        (2, ASLEEP, "the largest node has 1 GPU, 16 CPUs, no node that it may add has more"),
    ],
)
def test_gpus_that_no_single_node_has_are_refused(asked: float, cluster: Cluster, has: str) -> None:
    with pytest.raises(ConfigError, match=f"--gpus-per-worker {asked:g}: .*fit on one node.*{has}"):
        plan_resources(config(gpus_per_worker=asked), cluster, 10)


def test_cpus_that_no_single_node_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--cpus-per-worker 17: .* the largest node has 16 CPUs"):
        plan_resources(config(cpus_per_worker=17), CPU_FLEET, 10)


def test_part_of_a_gpu_beside_whole_ones_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--gpus-per-worker '1.5': .*only whole GPUs"):
        load({"input": "in", "output": "out", "gpus_per_worker": "1.5"})


def test_a_resource_plan_reads_as_a_line() -> None:
    assert str(plan_resources(config(), WORKSTATION, 100_000)) == (
        "1 predictor with 1 GPU each, batches of 32, 64 images per task, 4096 per file"
    )
    assert str(plan_resources(config(), LAPTOP, 1000)) == (
        "2 predictors with 1 thread each, batches of 16, 56 images per task, 56 per file"
    )
