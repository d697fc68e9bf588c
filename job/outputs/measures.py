"""Measures: what a run has done so far, as its receipt tells it."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import ray

from job.cluster.resources import ResourcePlan
from job.cluster.tracker import Snapshot, Tracker
from job.outputs.commits import Commits
from job.outputs.receipts import PREDICTING
from job.storage.location import Location
from job.storage.retries import take_retries


@dataclass(frozen=True)
class Measures:
    """Where a receipt finds what its run has done.

    Attributes:
        tracker: handle of the run's :class:`job.cluster.tracker.RunTracker`.
        resources: what each stage has asked Ray for.
    """

    tracker: Tracker
    resources: ResourcePlan

    def take(self) -> dict[str, Any]:
        """The fields of a receipt, as far as the run has come."""
        try:
            self.tracker.add.remote({}, {}, take_retries())  # this process's own
            total = ray.get(self.tracker.snapshot.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            return {}  # Ray itself is gone; what is committed tells the rest
        return {
            "maps": total.maps,
            "errors": dict(total.errors),
            "first_map": round(total.first_map, 3),
            "steady": round(total.steady, 3),
            "retries": total.retries,
            "stages": _stages(total, self.resources),
            "allotment": asdict(self.resources),
            "message": "; ".join(total.notes),
        }

    def committed(self, output: Location, run_id: str) -> dict[str, Any]:
        """The counts of a receipt, of what is committed and nothing else."""
        commits = Commits(output)
        try:
            told = ray.get(self.tracker.commits.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            maps, errors = commits.count(run_id)
            return {"maps": maps, "errors": errors}
        # What a task has told before its record was renamed may not be committed.
        tasks = {_task_of(name) for name in commits.committed(run_id)}
        counted = [told[task] for task in tasks & set(told)]
        errors = sum((Counter(kinds) for _, kinds in counted), Counter())
        return {"maps": sum(maps for maps, _ in counted), "errors": dict(errors)}


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


def _task_of(record: str) -> int:
    return int(record.removesuffix(".parquet").rpartition("-")[2])
