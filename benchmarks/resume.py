"""Seconds and memory until a run that has almost everything done already begins to work.

    python -m benchmarks.resume --done 1000000

INPUT is that many small files (links to a few), of which all but 64 are committed: their records
are written here as a run writes them. The last line is JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.long_run import write_images, write_model
from job import pipeline
from job.config import JobConfig
from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import freeze
from job.outputs import names, receipts
from job.outputs.attempts import Attempt, write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.committer import Committer
from job.outputs.recovery import recover
from job.storage.location import Location
from job.storage.opening import locate

LEFT = 64
# What a committed file holds, which nobody reads here.
_DATA = b"PAR1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--done", type=int, default=1_000_000)
    parser.add_argument("--per-file", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source, model, output = (Path(place) / name for name in ("in", "model", "out"))
        write_images(source, arguments.done + LEFT)
        write_model(model)
        _commit(locate(str(source)), locate(str(output)), arguments.done, arguments.per_file)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        lines: list[tuple[float, str]] = []
        started = time.monotonic()
        config = JobConfig(input=str(source), output=str(output), model=str(model), progress="none")
        receipt = pipeline.run(
            config, lambda line: lines.append((time.monotonic() - started, line))
        )
    result = {
        "done": arguments.done,
        "maps": receipt.maps,
        "seconds_until_work_is_known": round(lines[0][0], 1),
        "seconds_until_first_map": round(lines[1][0] + receipt.first_map, 1),
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "driver_mib_before": before >> 10,
    }
    print(lines[0][1])
    print(json.dumps(result))


def _commit(source: Location, output: Location, done: int, per_file: int) -> None:
    """Leave an OUTPUT as a run does that is stopped when it has committed so many images."""
    ids = np.random.default_rng(0).permutation(done)
    with OutputClaim(output, receipts.new_run_id()) as claim:
        commits = recover(output, claim)
        committer = Committer(output, claim)
        for part in freeze(ListedFiles(source.uri), commits.manifest_files()).new_parts:
            committer.commit([write_manifest(output, claim.name, part)])
        committer.expect(np.arange(done))
        for start in range(0, done, per_file):
            some = np.sort(ids[start : start + per_file])
            name = f"{names.ATTEMPTS}/{claim.name}-{start:016x}.maps.parquet"
            (output / name).write_bytes(_DATA)
            committer.commit([Attempt(some, [None] * len(some), {"maps": (name, len(_DATA))})])


if __name__ == "__main__":
    main()
