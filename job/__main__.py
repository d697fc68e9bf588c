"""``python -m job``."""

import sys

from job import console
from job.cluster.stopping import StopSignal


def main() -> int:
    """The command line, which answers signals before it has loaded anything."""
    console.outlast_readers()
    stop = StopSignal()
    stop.take_charge()
    from job.cli.main import main as run_verb

    exit_code = run_verb(stop=stop)
    if stop.was_given and "job.cluster.session" in sys.modules:
        from job.cluster.session import end_process

        end_process(exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
