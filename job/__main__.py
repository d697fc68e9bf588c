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

    return cli.main(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
