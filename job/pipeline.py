"""What a run does, on one screen: what there is to do is read first, and Ray started for the rest.

Nothing up here loads Ray, torch or transformers: an OUTPUT that is finished says so at once.
"""

from collections.abc import Callable
from functools import cache

from job.cluster.stopping import StopSignal
from job.config import JobConfig
from job.inputs.manifest import freeze
from job.outputs import receipts
from job.outputs.commits import Commits
from job.outputs.dataset_card import is_described, write_card, write_maps_schema
from job.outputs.lock import OutputLock
from job.outputs.palette import palette
from job.outputs.receipts import Receipt
from job.outputs.same_maps import check_same_maps, settings_of
from job.prepare import done_ids, look_ahead, open_checkpoint, open_places, rows_to_do
from job.wording import counted

Say = Callable[[str], None]


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
    source, output = open_places(config)
    ahead = cache(lambda: look_ahead(config, checkpoint))
    if not Commits(output).committed():
        ahead()  # a first run has work: what keeps it from that is told before it writes
    run_id = receipts.new_run_id()
    with OutputLock(output, run_id) as lock:
        stop.releasing(lock.release)
        settings = check_same_maps(output, origin, settings_of(config))
        images = freeze(source, output)
        Commits(output).recover()
        receipts.settle(output)
        done = done_ids(config, output)
        remaining = rows_to_do(config, images, done)
        counts = {"images": images.images, "done_before": len(done)}
        receipt = receipts.start(run_id, config.input, origin, settings, **counts)
        if not len(remaining):
            if not is_described(output):  # by a release that did not do it
                _, model = ahead()
                colours = palette(model.labels)
                write_card(output, model.labels, colours)
                write_maps_schema(output, model.labels, colours)
            return receipt.ending("finished")
        place, model = ahead()
        settings = check_same_maps(output, origin, settings_of(config, model))
        say(f"{place}")
        say(f"{len(remaining):,} of {counted(images.images, 'image')} to do, with {checkpoint!r}")
        if images.left_out.total:
            say(f"left out: {images.left_out}")
        from job.execution import Execution

        execution = Execution(config, source, checkpoint, model, output, say, stop, lock.release)
        return execution.execute(place, receipt.with_settings(settings), images, remaining)
