"""Measures: what a run has done so far, as its receipt tells it."""

from dataclasses import asdict, dataclass
from typing import Any

import ray

from job.cluster.resources import ResourcePlan
from job.cluster.tracker import Snapshot, Tracker
from job.outputs.committer import Committer
from job.outputs.receipts import PREDICTING
from job.storage.retries import take_retries


@dataclass(frozen=True)
class Measures:
    """Where a receipt finds what its run has done.

    Attributes:
        tracker: handle of the run's :class:`job.cluster.tracker.RunTracker`.
        resources: what each stage has asked Ray for.
        committer: counts what is committed.
    """

    tracker: Tracker
    resources: ResourcePlan
    committer: Committer

    def take(self) -> dict[str, Any]:
        """The fields of a receipt, as far as the run has come; its counts are of commits."""
        counts = {"maps": self.committer.maps, "errors": dict(self.committer.errors)}
        try:
            self.tracker.add.remote({}, {}, take_retries())  # this process's own
            total = ray.get(self.tracker.snapshot.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            return counts  # Ray itself is gone
        return {
            **counts,
            "first_map": round(total.first_map, 3),
            "steady": round(total.steady, 3),
            "retries": total.retries,
            "stages": _stages(total, self.resources),
            "allotment": asdict(self.resources),
            "message": "; ".join(total.notes),
        }


def _stages(total: Snapshot, resources: ResourcePlan) -> dict[str, dict[str, float]]:
    stages = {}
    cpus = ray.cluster_resources().get("CPU", 0) or resources.cpus  # those that have come
    for stage, seconds in total.seconds.items():
        in_predictors = stage in PREDICTING or not resources.loads_apart
        slots = (total.arrived or resources.workers) if in_predictors else cpus
        stages[stage] = {
            "seconds": round(seconds, 3),
            "images": total.images[stage],
            "images_per_second": round(total.images[stage] / max(seconds, 1e-9), 2),
            # Two loading tasks share a core: together they may be busier than it.
            "busy": min(1.0, round(seconds / max(total.spans[stage] * slots, 1e-9), 3)),
        }
    return stages
