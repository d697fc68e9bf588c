"""Run: a run as :func:`job.pipeline.run` does it, with the simulated cluster in Ray's place."""

from dataclasses import replace
from functools import cache
from random import Random

import numpy as np

from job.config import JobConfig
from job.inputs.manifest import freeze
from job.models.checkpoint import Origin
from job.outputs import receipts, recovery
from job.outputs.attempts import Attempt, write_attempt, write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.committer import Committer
from job.outputs.dataset_card import write_card, write_maps_schema
from job.outputs.receipts import Receipt
from job.prepare import done_ids, rows_to_do
from job.storage.location import Location
from tests.inputs import MadeInput
from tests.simulation import images
from tests.simulation.cluster import Cluster, TaskRows
from tests.simulation.scenario import RetryErrors, RunPlan


def do_run(plan: RunPlan, output: Location, cluster: Cluster, random: Random) -> None:
    """Do a run, in its own host.

    Args:
        plan: the run.
        output: its OUTPUT.
        cluster: its workers.
        random: decides what becomes of images that may or may not have a map.

    Raises:
        JobError: as a run does.
        OSError: a storage error that a run would explain.
    """
    run_id = receipts.new_run_id()
    with OutputClaim(output, run_id) as claim:
        committed = recovery.recover(output, claim)
        receipts.settle(output, committed, claim)
        manifest = freeze(MadeInput(plan.uris), committed.manifest_files())
        committer = Committer(output, claim)
        for part in manifest.new_parts:
            committer.commit([write_manifest(output, claim.name, part)])
        config = _config(plan.retry_errors)
        done = done_ids(config, manifest, committed)
        rows = rows_to_do(config, manifest, done)
        if not len(rows):
            return
        claim.ask()
        write_card(output, images.LABELS, images.COLOURS)
        receipt = _receipt(run_id, manifest.images, len(done))
        receipt.write(output)
        committer.expect(np.sort(rows["id"].to_numpy()))

        def write(task: TaskRows) -> Attempt:
            encoded = images.encoded(task, run_id, random)
            return write_attempt(output, claim.name, run_id, encoded, images.maps_schema())

        pairs = list(zip(rows["id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
        tasks = [
            tuple(pairs[start : start + plan.images_per_task])
            for start in range(0, len(pairs), plan.images_per_task)
        ]
        with committer.at_work(lambda: None) as waiting:
            for attempt in cluster.attempts(tasks, write):
                waiting.add(attempt)
        committer.clear()
        write_maps_schema(output, images.LABELS, images.COLOURS)
        committer.check_finished()
        counts = {"maps": committer.maps, "errors": dict(committer.errors)}
        receipt.ending("finished", **counts).write(output)


def _receipt(run_id: str, count: int, done_before: int) -> Receipt:
    return replace(_any_receipt(), run_id=run_id, images=count, done_before=done_before)


@cache
def _any_receipt() -> Receipt:
    origin = Origin("model", "revision", "digest")
    return receipts.begin("", "s3://sim/in", origin, {}, images=0, done_before=0)


@cache
def _config(retry_errors: RetryErrors) -> JobConfig:
    return JobConfig(input="s3://sim/in", output="s3://sim/out", retry_errors=retry_errors)
