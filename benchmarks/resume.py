"""Seconds and memory until a run that has almost everything done already begins to work.

    python -m benchmarks.resume --done 1000000

INPUT is that many small files (links to a few), of which all but 64 are committed: their records
are written here as Ray Data writes them. The last line is JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.long_run import write_images, write_model
from job import pipeline
from job.config import JobConfig
from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import freeze
from job.storage.opening import locate

LEFT = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--done", type=int, default=1_000_000)
    parser.add_argument("--per-file", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source, model, output = (Path(place) / name for name in ("in", "model", "out"))
        write_images(source, arguments.done + LEFT)
        write_model(model)
        freeze(ListedFiles(str(source)), locate(str(output)))
        (output / "commits").mkdir()
        ids = np.random.default_rng(0).permutation(arguments.done)
        for number, start in enumerate(range(0, arguments.done, arguments.per_file)):
            table = pa.table({"id": np.sort(ids[start : start + arguments.per_file])})
            pq.write_table(table, output / "commits" / f"earlier-{number:06d}.parquet")
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


if __name__ == "__main__":
    main()
