"""Planning: what a run would do, found out without doing it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.config import JobConfig
from job.inputs.manifest import Manifest, freeze
from job.outputs.same_maps import check_same_maps, settings_of
from job.prepare import done_ids, look_ahead, open_checkpoint, open_places

if TYPE_CHECKING:
    from job.cluster.resources import Cluster, ResourcePlan
    from job.models.info import ModelInfo


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        images: the images, as listed now.
        done: how many of them have a map or an error row already.
        model: what would predict on them.
        cluster: what Ray has.
        resources: what each stage would ask for.
    """

    images: Manifest
    done: int
    model: "ModelInfo"
    cluster: "Cluster"
    resources: "ResourcePlan"

    @property
    def remaining(self) -> int:
        """Images that a run would process."""
        return self.images.images - self.done


def plan(config: JobConfig) -> Plan:
    """Look at everything a run would look at, and change nothing.

    Raises:
        JobError: whatever would keep a run from starting.
    """
    checkpoint, origin = open_checkpoint(config)
    source, output = open_places(config)
    place, model = look_ahead(config, checkpoint)
    check_same_maps(output, origin, settings_of(config, model))
    images = freeze(source, output, write=False)
    done = len(done_ids(config, output))
    from job.execution import survey

    cluster, resources = survey(config, place, images, images.images - done)
    return Plan(images, done, model, cluster, resources)
