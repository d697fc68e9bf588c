"""Resources: how many workers of what size, from what the cluster has and what the user says.

What a job holds is enough for it to go on: no stage holds a CPU while it waits for another stage of
the same job to get one. On CPUs a predictor has whole CPUs of its own, and loads, predicts and
encodes in one; beside GPUs images are loaded in tasks that give their CPU back after each few.
Everything else is short and asks for none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from job.cluster.autoscaling import Growth, NodeType, find_growth, is_head
from job.config import JobConfig
from job.errors import ConfigError
from job.wording import counted

# Loading a model takes about as long as this many images.
IMAGES_WORTH_A_MODEL = 8
# A node with a GPU that has still to come is minutes of set-up that are paid for; so many images
# are seconds to minutes of work on it.
IMAGES_WORTH_A_GPU_TO_COME = 1000
# The most images in a file: some 40 MB beside GPUs, where that is seconds of work, and 5 MB beside
# CPUs, where a crash costs a minute.
FILE_OF_GPU, FILE_OF_CPU = 4096, 512


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        cpus: logical CPUs that tasks may ask for.
        gpus: GPUs, likewise.
        id: Ray's name for it.
    """

    cpus: float
    gpus: float = 0.0
    id: str = field(default="", compare=False)

    def fits(self, cpus: float, gpus: float) -> int:
        """How many workers of a size it has room for when nobody else is there."""
        return _fitting(self.cpus, self.gpus, cpus, gpus)


@dataclass(frozen=True)
class Cluster:
    """What a cluster has, and can grow to.

    Attributes:
        nodes: the machines that are there now, and take tasks.
        growth: what may come; None when that is not known.
        head: the machine that coordinates, which no autoscaler counts; among the nodes only when it
            takes tasks.
    """

    nodes: tuple[Node, ...]
    growth: Growth | None = field(default_factory=Growth)
    head: Node | None = None

    @classmethod
    def now(cls) -> "Cluster":
        """Ask Ray. The driver's own machine is never asked: it may be a head without a GPU."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = [_node(described) for described in alive]
        heads = [_node(described) for described in alive if is_head(described)]
        working = tuple(node for node in nodes if node.cpus or node.gpus)
        return cls(working, find_growth(), heads[0] if heads else None)

    @property
    def cpus(self) -> float:
        """Logical CPUs that are there now."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs that are there now."""
        return sum(node.gpus for node in self.nodes)

    @property
    def types(self) -> tuple[NodeType, ...]:
        """The kinds of nodes that may come, as far as that is known."""
        return self.growth.types if self.growth else ()

    @property
    def may_have_gpus(self) -> bool:
        """Whether there are GPUs, or may be some later, as far as that is known."""
        return bool(self.gpus) or any(kind.gpus for kind in self.types)

    def fits_now(self, cpus: float, gpus: float) -> int:
        """How many workers of a size the nodes that are there have room for."""
        return sum(node.fits(cpus, gpus) for node in self.nodes)

    def fits(self, cpus: float, gpus: float) -> int:
        """How many workers of a size there is room for once the cluster has grown."""
        most = sorted(
            ((_fitting(kind.cpus, kind.gpus, cpus, gpus), kind.most) for kind in self.types),
            reverse=True,
        )
        nodes, fitting = self.growth.most_nodes if self.growth else 0, 0
        for each, count in most:
            taken = min(nodes, count)
            nodes, fitting = nodes - taken, fitting + taken * each
        if self.head:
            fitting += self.head.fits(cpus, gpus)
        return max(self.fits_now(cpus, gpus), fitting)

    @property
    def largest(self) -> str:
        """The largest nodes there are or may be, in words."""
        sizes = {(node.gpus, node.cpus) for node in self.nodes}
        sizes |= {(kind.gpus, kind.cpus) for kind in self.types}
        if not sizes:
            return "there is no node that takes tasks"
        gpus, cpus = max(sizes)
        return f"the largest node has {describe_request(cpus, gpus)}"

    @property
    def beside_head(self) -> dict[str, Any]:
        """Ray's arguments for tasks that ask for no CPU, to keep them off a head without any."""
        if self.head is None or self.head.cpus:
            return {}
        return {"label_selector": {"ray.io/node-id": f"!{self.head.id}"}}


@dataclass(frozen=True)
class ResourcePlan:
    """What each stage of a run asks Ray for.

    Attributes:
        workers: predictors, each with a model of its own, once all of them are there.
        workers_now: as many of them as there is room for already.
        cpus_per_worker: CPUs that each asks for.
        gpus_per_worker: GPUs, likewise.
        threads: CPU threads that each predicts with.
        batch_size: images per call of a predictor.
        images_at_once: images in one forward pass of its model.
        load_cpus: CPUs that a task asks for that fetches, decodes and resizes; 0 when predictors
            do that themselves, and encode as well.
        cpus: CPUs of the cluster, once all nodes are there.
        encoders: tasks that encode at the same time, at most.
        writers: tasks that write at the same time, at most.
        images_per_task: images that such a task handles.
        images_per_file: images after which a file is written and committed.
        placement: Ray's arguments for tasks that ask for no CPU.
    """

    workers: int
    workers_now: int
    cpus_per_worker: float
    gpus_per_worker: float
    threads: int
    batch_size: int
    images_at_once: int
    load_cpus: float
    cpus: float
    encoders: int
    writers: int
    images_per_task: int
    images_per_file: int
    placement: dict[str, Any]

    @property
    def loads_apart(self) -> bool:
        """Whether images are loaded, and maps encoded, in tasks of their own."""
        return bool(self.load_cpus)

    @property
    def each(self) -> str:
        """What a predictor asks for, in words."""
        return describe_request(self.cpus_per_worker, self.gpus_per_worker)

    def __str__(self) -> str:
        device = (
            f"{self.gpus_per_worker:g} GPU{_s(self.gpus_per_worker)}"
            if self.gpus_per_worker
            else f"{self.threads} thread{_s(self.threads)}"
        )
        upto = "up to " if self.workers_now < self.workers else ""
        return (
            f"{upto}{self.workers} predictor{_s(self.workers)} with {device} each,"
            f" batches of {self.batch_size}, {counted(self.images_per_task, 'image')} per task,"
            f" {self.images_per_file} per file"
        )


def plan_resources(config: JobConfig, cluster: Cluster, remaining: int) -> ResourcePlan:
    """Defaults that fit the cluster; what the user has set stays as set.

    Raises:
        ConfigError: no node that is there, or that is known to come, has what is asked for.
    """
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if cluster.may_have_gpus else 0.0
    # A predictor of one thread for each core: threads that wait for each other lose most of their
    # time as soon as another process takes one of their cores.
    threads = config.cpus_per_worker or 1
    cpus = 0.0 if gpus else float(threads)
    # Two loading tasks to a core: one waits for its images while the other decodes.
    load = 0.5 if gpus else 0.0
    fitting = _room(config, cluster, cpus, gpus, load)
    here = min(cluster.fits_now(cpus, gpus), remaining // IMAGES_WORTH_A_MODEL)
    to_come = IMAGES_WORTH_A_GPU_TO_COME if gpus else IMAGES_WORTH_A_MODEL
    worthwhile = max(1, here, remaining // to_come)
    workers = min(fitting, config.workers or worthwhile)
    share = remaining // (8 * workers)
    most = FILE_OF_GPU if gpus else FILE_OF_CPU
    per_file = config.images_per_file or _clamped(share, 16, most)
    per_task = min(per_file, config.images_per_task or _clamped(share // 8 * 8, 8, 64))
    # Whole tasks: no fewer images than somebody asks for, else no more than a crash should cost.
    tasks = -(-per_file // per_task) if config.images_per_file else per_file // per_task
    batch_size = config.batch_size or (32 if gpus else min(16, per_task))
    total = max(cluster.fits(1.0, 0.0), workers * max(cpus, load))
    return ResourcePlan(
        workers=workers,
        workers_now=min(workers, cluster.fits_now(cpus, gpus)),
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        threads=threads,
        batch_size=batch_size,
        # A core is busy with one image; more only spill its caches.
        images_at_once=batch_size if gpus else 1,
        load_cpus=load,
        cpus=total,
        encoders=max(1, int(total / 4)),
        writers=max(2, int(total / 2)),
        images_per_task=per_task,
        images_per_file=tasks * per_task,
        placement=cluster.beside_head,
    )


def _room(config: JobConfig, cluster: Cluster, cpus: float, gpus: float, load: float) -> int:
    """How many predictors of a size there may be; as many as are asked for when nobody knows."""
    fitting = cluster.fits(cpus, gpus)
    if cluster.growth is None:
        # What may come is not known, so what is asked for is believed: more than is there.
        return max(fitting, config.workers or 1)
    if fitting and (not load or cluster.fits(load, 0.0)):
        return fitting
    adds = "no node that it may add has more" if cluster.types else "and it adds none by itself"
    if not fitting and not gpus and config.cpus_per_worker is None:
        raise ConfigError(f"the cluster has no CPUs for tasks, {adds}. Add worker nodes")
    if not fitting:
        option = f"--gpus-per-worker {gpus:g}" if gpus else f"--cpus-per-worker {cpus:g}"
        remedy = "Use 0 to predict on CPUs, or add such nodes" if gpus else "Ask for fewer"
        raise ConfigError(
            f"{option}: a predictor has to fit on one node, and of this cluster {cluster.largest},"
            f" {adds}. {remedy}"
        )
    raise ConfigError(
        f"the cluster has GPUs but no CPUs for the tasks that load images, {adds}. Add worker nodes"
    )


def _node(described: Mapping[str, Any]) -> Node:
    """A machine as ``ray.nodes()`` describes it."""
    has = described["Resources"]
    return Node(float(has.get("CPU", 0)), float(has.get("GPU", 0)), described["NodeID"])


def _fitting(cpus: float, gpus: float, each_cpus: float, each_gpus: float) -> int:
    rooms = [int(has / each) for has, each in ((cpus, each_cpus), (gpus, each_gpus)) if each]
    return min(rooms)


def describe_request(cpus: float, gpus: float) -> str:
    """An amount of resources in words: ``1 GPU``, ``2 CPUs``, ``1 GPU, 16 CPUs``."""
    parts = [(gpus, "GPU"), (cpus, "CPU")]
    return ", ".join(f"{has:g} {name}{_s(has)}" for has, name in parts if has) or "nothing"


def _s(count: float) -> str:
    return "" if count == 1 else "s"


def _clamped(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
