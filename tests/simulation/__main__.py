"""Simulate as many schedules as are asked for, and print those that break the promise.

    SEEDS=100000 python -m tests.simulation         seeds 0 to 99,999, on all cores
    SEEDS=1 FIRST=4711 python -m tests.simulation   one of them, with all that happened in it

The exit code is 1 when a schedule broke it.
"""

import os
import sys
import time
from collections import Counter
from multiprocessing import Pool

from tests.simulation import stand_ins
from tests.simulation.scenario import draw_scenario
from tests.simulation.simulation import Report, simulate

_AT_ONCE = 50
# Schedules of which all is printed that happened.
_TOLD = 3


def simulate_seeds(first: int, count: int) -> list[Report]:
    """The reports of some seeds, from the first one on; their logs only where a rule is broken."""
    reports = []
    with stand_ins.in_place():
        for seed in range(first, first + count):
            report = simulate(draw_scenario(seed))
            if not report.violations:
                report.log.clear()
            reports.append(report)
    return reports


def main() -> int:
    first, count = int(os.environ.get("FIRST", "0")), int(os.environ.get("SEEDS", "1000"))
    began = time.monotonic()
    done, requests = 0, 0
    injected: Counter[str] = Counter()
    broken: list[Report] = []
    pieces = [
        (seed, min(_AT_ONCE, first + count - seed))
        for seed in range(first, first + count, _AT_ONCE)
    ]
    with Pool() as pool:
        for reports in pool.imap_unordered(_simulate_piece, pieces):
            done += len(reports)
            for report in reports:
                requests += report.requests
                injected += report.injected
                if report.violations:
                    broken.append(report)
                    _tell(report, with_story=len(broken) <= _TOLD)
            if done % 1000 < _AT_ONCE or done == count:
                rate = done / (time.monotonic() - began)
                print(f"{done:,} of {count:,} schedules, {rate:.0f} per second", flush=True)
    faults = ", ".join(f"{number:,} {kind}" for kind, number in injected.most_common())
    print(f"{requests:,} requests; faults: {faults or 'none'}")
    print(f"{len(broken):,} of {count:,} schedules broke the promise")
    return 1 if broken else 0


def _simulate_piece(piece: tuple[int, int]) -> list[Report]:
    return simulate_seeds(*piece)


def _tell(report: Report, *, with_story: bool) -> None:
    seed = report.scenario.seed
    print(f"seed {seed} (SEEDS=1 FIRST={seed} python -m tests.simulation):")
    for violation in report.violations:
        print(f"  {violation}")
    if with_story:
        print(report.story)


if __name__ == "__main__":
    sys.exit(main())
