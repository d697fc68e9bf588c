"""Planning: what a run would do, found out without doing it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.config import JobConfig
from job.inputs.manifest import Manifest, freeze
from job.outputs.commits import Commits
from job.outputs.same_maps import check_same_maps, settings_of
from job.prepare import done_ids, find_ray_and_model, open_checkpoint, open_input_and_output

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
    source, output = open_input_and_output(config)
    ray_place, model = find_ray_and_model(config, checkpoint)
    check_same_maps(output, origin, settings_of(config, model))
    commits = Commits.read(output)
    manifest = freeze(source, commits.manifest_files())
    done = len(done_ids(config, manifest, commits))
    from job.cluster.node_check import check_nodes
    from job.cluster.resources import Cluster, plan_resources
    from job.cluster.session import cluster_session

    with cluster_session(ray_place):
        check_nodes(manifest.witnesses)
        cluster = Cluster.now()
        resources = plan_resources(config, cluster, manifest.images - done)
        return Plan(manifest, done, model, cluster, resources)
