"""Resources: how many workers of what size, from what the cluster has and what the user says."""

from dataclasses import dataclass

import ray

from job.config import JobConfig
from job.errors import ConfigError

# Loading a model takes about as long as this many images.
IMAGES_WORTH_A_MODEL = 8
# The least that can be asked for. Where all CPUs are taken Ray starts what fits: encoding and
# writing would wait until there is nothing left to decode. So these ask for crumbs, and the others
# leave some; how many of them there are at a time is bounded otherwise.
CRUMB = 0.0001
# The most images in a file: some 40 MB beside GPUs, where that is seconds of work, and 5 MB beside
# CPUs, where a crash costs a minute.
FILE_OF_GPU, FILE_OF_CPU = 4096, 512


@dataclass(frozen=True)
class Cluster:
    """What a cluster has, or can grow to.

    Attributes:
        cpus: logical CPUs.
        gpus: GPUs.
        nodes: machines that are there now.
    """

    cpus: float
    gpus: float
    nodes: int

    @classmethod
    def now(cls) -> "Cluster":
        """Ask Ray. The driver's own machine is never asked: it may be a head without a GPU."""
        resources = ray.cluster_resources()
        # An autoscaling cluster shows only what is up; its limits tell what can come.
        limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
        return cls(
            cpus=float(max(resources.get("CPU", 0), limits.get("CPU", 0))),
            gpus=float(max(resources.get("GPU", 0), limits.get("GPU", 0))),
            nodes=sum(bool(node["Alive"]) for node in ray.nodes()),
        )


@dataclass(frozen=True)
class Allotment:
    """What each stage of a run asks Ray for.

    Attributes:
        workers: predictors, each with a model of its own.
        cpus_per_worker: CPUs that each asks for.
        gpus_per_worker: GPUs, likewise.
        threads: CPU threads that each predicts with.
        batch_size: images per call of a predictor.
        images_at_once: images in one forward pass of its model.
        load_cpus: CPUs that a task asks for that fetches, decodes and resizes.
        encode_cpus: the same for a task that encodes.
        write_cpus: the same for a task that writes.
        encoders: tasks that encode at the same time, at most.
        writers: tasks that write at the same time, at most.
        images_per_task: images that such a task handles.
        images_per_file: images after which a file is written and committed.
    """

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    threads: int
    batch_size: int
    images_at_once: int
    load_cpus: float
    encode_cpus: float
    write_cpus: float
    encoders: int
    writers: int
    images_per_task: int
    images_per_file: int

    def __str__(self) -> str:
        device = (
            f"{self.gpus_per_worker:g} GPU"
            if self.gpus_per_worker
            else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        )
        return (
            f"{self.workers} predictor{'s' if self.workers > 1 else ''} with {device} each,"
            f" batches of {self.batch_size}, {self.images_per_task} images per task,"
            f" {self.images_per_file} per file"
        )


def allot(config: JobConfig, cluster: Cluster, remaining: int) -> Allotment:
    """Defaults that fit the cluster; what the user has set stays as set.

    Raises:
        ConfigError: the cluster has not what is asked for.
    """
    if cluster.cpus <= 0:
        raise ConfigError("the cluster has no CPUs for tasks; add worker nodes, or wait for them")
    gpus = _gpus_per_worker(config, cluster)
    if gpus:
        workers = config.workers or max(1, int(cluster.gpus / gpus))
        threads, cpus = config.cpus_per_worker or 1, 0.0
    else:
        # A predictor of one thread for each core: threads that wait for each other lose most of
        # their time as soon as a decoding task takes one of their cores. Each asks Ray for half a
        # core so that the short tasks fit in beside.
        threads = config.cpus_per_worker or 1
        cores = max(1, int(cluster.cpus / threads))
        workers = config.workers or _clamped(remaining // IMAGES_WORTH_A_MODEL, 1, cores)
        cpus = min(threads, cluster.cpus / workers) / 2 - CRUMB
    most = FILE_OF_GPU if gpus else FILE_OF_CPU
    share = remaining // (8 * workers)
    per_file = config.images_per_file or _clamped(share, 16, most)
    per_task = min(per_file, config.images_per_task or _clamped(share // 8 * 8, 8, 64))
    batch_size = config.batch_size or (32 if gpus else min(16, per_task))
    load = 0.4 * min(1.0, cluster.cpus / 2) - CRUMB
    # Equal requests would have Ray fuse decoding into the predictors.
    if cpus == load:
        cpus -= CRUMB
    return Allotment(
        workers=workers,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        threads=threads,
        batch_size=batch_size,
        # A core is busy with one image; more only spill its caches.
        images_at_once=batch_size if gpus else 1,
        load_cpus=load,
        encode_cpus=2 * CRUMB,
        write_cpus=CRUMB,
        encoders=max(1, int(cluster.cpus / 4)),
        writers=max(2, int(cluster.cpus / 2)),
        images_per_task=per_task,
        images_per_file=per_file,
    )


def _gpus_per_worker(config: JobConfig, cluster: Cluster) -> float:
    gpus = config.gpus_per_worker
    if gpus is None:
        return 1.0 if cluster.gpus else 0.0
    if gpus > cluster.gpus:
        raise ConfigError(
            f"--gpus-per-worker {gpus:g}: the cluster has {cluster.gpus:g} GPUs, now or after"
            " scaling up. Use 0 to predict on CPUs"
        )
    return gpus


def _clamped(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
