"""``python -m job``."""

import sys

from job import console
from job.stopping import StopSignal


def main() -> int:
    """The command line, which answers signals before it has loaded anything."""
    console.outlast_readers()
    stop = StopSignal()
    stop.take_charge()
    from job import cli

    exit_code = cli.main(stop=stop)
    if stop.was_given and "job.session" in sys.modules:
        from job.session import end_process

        end_process(exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
