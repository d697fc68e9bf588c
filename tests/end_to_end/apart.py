"""The job as it goes beside GPUs, on CPUs: ``python -m tests.end_to_end.apart run …``.

Images are loaded in tasks ahead of the predictors and maps encoded in tasks behind them, as the
job does it wherever predictors have GPUs.
"""

import sys
from dataclasses import replace
from typing import Any

from job import execution
from job.cluster.resources import ResourcePlan


def load_apart() -> None:
    """Have runs of this process do so: one predictor, and what is left of the CPUs for tasks."""
    plan_resources = execution.plan_resources

    def plan_apart(*arguments: Any) -> ResourcePlan:
        resources = plan_resources(*arguments)
        return replace(resources, workers=1, workers_now=1, load_cpus=1.0)

    patched: Any = execution
    patched.plan_resources = plan_apart


def main() -> int:
    """Run the job's command line so."""
    from job.cli.main import main as run_verb

    load_apart()
    return run_verb(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
