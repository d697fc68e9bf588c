"""What a run does, on one screen: what there is to do is read first, and Ray started for the rest.

Nothing up here loads Ray, torch or transformers: an OUTPUT that is finished says so at once.
"""

from functools import cache

from job.cluster.stopping import StopSignal
from job.config import JobConfig
from job.console import Say
from job.inputs.manifest import freeze
from job.outputs import commits, names, receipts
from job.outputs.attempts import write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import Committer
from job.outputs.dataset_card import is_described, write_card, write_maps_schema
from job.outputs.palette import palette
from job.outputs.receipts import Receipt
from job.outputs.recovery import recover
from job.outputs.same_maps import check_same_maps, settings_of
from job.prepare import (
    done_ids,
    find_ray_and_model,
    open_checkpoint,
    open_input_and_output,
    rows_to_do,
)
from job.storage.location import Location
from job.wording import counted


def run(config: JobConfig, say: Say = lambda line: None, stop: StopSignal | None = None) -> Receipt:
    """Segment every image of the input that has neither a map nor an error row yet.

    Args:
        config: the options.
        say: is told in a line, now and then, what happens.
        stop: tells when to stop.

    Returns:
        The receipt, as it is left in storage; one with nothing done when nothing was left to do.

    Raises:
        JobError: the run could not be done; a receipt that was begun says why.
    """
    stop = stop or StopSignal()
    checkpoint, origin = open_checkpoint(config)
    source, output = open_input_and_output(config)
    ray_and_model = cache(lambda: find_ray_and_model(config, checkpoint))
    if not commits.has_begun(output):
        ray_and_model()  # a first run has work: what keeps it from that is told before it writes
    run_id = receipts.new_run_id()
    with OutputClaim(output, run_id) as claim, claim.telling_loss():
        stop.releasing(claim.release)
        # Without the model, which is not read where nothing is left to do; again with it below.
        settings = check_same_maps(output, origin, settings_of(config))
        committed = _take_over(output, claim, say)
        committer = Committer(output, claim)
        manifest = freeze(source, committed.manifest_files())
        for part in manifest.new_parts:
            committer.commit([write_manifest(output, claim.name, part)])
        done = done_ids(config, manifest, committed)
        rows = rows_to_do(config, manifest, done)
        counts = {"images": manifest.images, "done_before": len(done)}
        receipt = receipts.begin(run_id, config.input, origin, settings, **counts)
        if not len(rows):
            if not is_described(output):  # by a release that did not do it
                _, model = ray_and_model()
                claim.ask()
                write_card(output, model.labels, palette(model.labels))
                write_maps_schema(output, model.labels, palette(model.labels))
            return receipt.ending("finished")
        ray_place, model = ray_and_model()
        settings = check_same_maps(output, origin, settings_of(config, model))
        say(f"{ray_place}")
        say(f"{len(rows):,} of {counted(manifest.images, 'image')} to do, with {checkpoint!r}")
        if manifest.left_out.total:
            say(f"left out: {manifest.left_out}")
        from job.execution import Execution

        execution = Execution(
            config=config,
            source=source,
            checkpoint=checkpoint,
            model=model,
            output=output,
            say=say,
            stop=stop,
            committer=committer,
            claim=claim,
        )
        return execution.execute(ray_place, receipt.with_settings(settings), manifest, rows)


def _take_over(output: Location, claim: OutputClaim, say: Say) -> Commits:
    """What earlier runs have committed, once what they left is in order."""
    committed = recover(output, claim)
    void = [name for name in committed.void if not name.endswith(names.PENDING)]
    if void:
        say(
            f"{counted(len(void), 'commit')} of earlier runs cannot count, and their images are"
            f" done again: {void[0]}: {committed.void[void[0]]}"
        )
    receipts.settle(output, committed, claim)
    return committed
