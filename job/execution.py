"""Execution: the images that are left to do, on Ray."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from job.cluster import progress
from job.cluster.address import Place
from job.cluster.data_settings import quiet_data
from job.cluster.node_check import check_nodes
from job.cluster.outage_ending import ending_on_outage
from job.cluster.resources import Cluster, ResourcePlan, plan_resources
from job.cluster.session import cluster_session
from job.cluster.stopping import StopSignal
from job.cluster.tracker import Tracker, ask, start_tracker
from job.cluster.waiting import WorkersWatch
from job.config import JobConfig
from job.console import Say
from job.inputs.base import Input
from job.inputs.manifest import Manifest
from job.models.checkpoint import Checkpoint
from job.models.info import ModelInfo
from job.outputs.attempts import Attempt
from job.outputs.claims import OutputClaim
from job.outputs.committer import Committer
from job.outputs.dataset_card import write_card, write_maps_schema
from job.outputs.measures import Measures
from job.outputs.palette import palette
from job.outputs.receipt_writer import writing_receipt
from job.outputs.receipts import Receipt
from job.outputs.refused import explaining_refusals
from job.predict.precision import choose_precision
from job.stages import Stages
from job.storage.location import Location


@dataclass(frozen=True)
class Execution:
    """A run's work on the cluster.

    Attributes:
        config: the options.
        source: what the images are fetched from.
        checkpoint: the model.
        model: what is known of it.
        output: the run's OUTPUT.
        say: is told in a line, now and then, what happens.
        stop: tells when to stop.
        claim: the run's to OUTPUT.
        committer: makes visible what workers have written.
    """

    config: JobConfig
    source: Input
    checkpoint: Checkpoint
    model: ModelInfo
    output: Location
    say: Say
    stop: StopSignal
    claim: OutputClaim
    committer: Committer

    def execute(
        self, ray_place: Place, receipt: Receipt, manifest: Manifest, rows: pa.Table
    ) -> Receipt:
        """Take images to OUTPUT; returns the receipt as it is left in storage.

        Args:
            ray_place: where the work is done.
            receipt: of the run.
            manifest: all images.
            rows: of the manifest, for the images to do.

        Raises:
            JobError: the run could not be done; the receipt says why.
        """
        with cluster_session(ray_place), quiet_data():
            check_nodes(manifest.witnesses, self.output)
            resources = plan_resources(self.config, Cluster.now(), len(rows))
            self.say(f"{resources}")
            self.claim.ask()
            write_card(self.output, self.model.labels, self.colours)
            self.committer.expect(np.sort(rows["id"].to_numpy()))
            tracker = start_tracker()
            watch = WorkersWatch(resources, self.config.worker_timeout, partial(ask, tracker))
            receipt = self._with_precision(receipt, resources, watch)
            stages = Stages(
                config=self.config,
                source=self.source,
                checkpoint=self.checkpoint,
                model=self.model,
                colours=self.colours,
                resources=resources,
                receipt=receipt,
                tracker=tracker,
                witnesses=manifest.witnesses,
            )
            measures = Measures(tracker, resources, self.committer)
            # Outermost, so that the receipt tells of whatever ends the run.
            with writing_receipt(receipt, self.output, measures, self.claim.release) as writer:
                with (
                    self.claim.telling_loss(),
                    progress.watching(
                        tracker, len(rows), self.config.progress, describe=watch.describe
                    ),
                    watch.over_dataset(),
                    self.stop.finishing(writer.stopping, self.config.stop_grace),
                    ending_on_outage(tracker, lambda: self.stop.was_given),
                    explaining_refusals(self.output),
                ):
                    self._commit(stages.write_attempts(rows, self.output, self.claim.name), tracker)
                    write_maps_schema(self.output, self.model.labels, self.colours)
                # A run that was stopped, or that storage has kept from its images, has said so.
                self.committer.check_finished()
                if self.committer.note:
                    tracker.note.remote(self.committer.note)
                    self.say(self.committer.note)
        return writer.receipt

    def _commit(self, attempts: Generator[Attempt], tracker: Tracker) -> None:
        def count() -> None:
            tracker.commit.remote(self.committer.maps, dict(self.committer.errors))

        # Whatever ends the commits ends the work as well, as long as there is a Ray to ask.
        with closing(attempts), self.committer.at_work(count) as waiting:
            for attempt in attempts:
                waiting.add(attempt)
        self.committer.clear()

    @cached_property
    def colours(self) -> np.ndarray:
        """Of the classes, (classes, 3) uint8."""
        return palette(self.model.labels)

    def _with_precision(
        self, receipt: Receipt, resources: ResourcePlan, watch: WorkersWatch
    ) -> Receipt:
        """The receipt with what ``--precision auto`` comes to on this cluster."""
        if receipt.settings["precision"] != "auto":
            return receipt
        precision, reason = choose_precision(
            self.checkpoint, resources, lambda: watch.wait_for_place(self.say)
        )
        self.say(reason)
        return receipt.with_precision(precision)
