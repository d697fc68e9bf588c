"""Look before money is spent: ``python -m deploy.check [cluster.yaml]``, or ``make cluster-check``.

One line for each thing that `ray up` and the cluster need; exit code 1 when something is wrong.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from deploy.account import check_account
from deploy.cluster_file import Config, read
from deploy.finding import Finding, wrong
from deploy.machine import check_machine


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Check, and say what was found; returns the exit code."""
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        print("usage: python -m deploy.check [cluster.yaml]", file=sys.stderr)
        return 2
    config, found = read(Path(arguments[0] if arguments else "cluster.yaml"))
    if config is not None:
        found = [*found, *check_machine(config, environment), *_check_aws(config)]
    for finding in found:
        print(finding)
    bad = sum(finding.verdict == "wrong" for finding in found)
    unseen = sum(finding.verdict == "warning" for finding in found)
    print(f"{len(found)} looked at: {bad} wrong, {unseen} with a warning")
    return 1 if bad else 0


def _check_aws(config: Config) -> list[Finding]:
    try:
        session = boto3.Session()
    except BotoCoreError as error:
        return [wrong("credentials", f"{error}: correct AWS_PROFILE or ~/.aws/config")]
    return check_account(session, config)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except KeyboardInterrupt:
        sys.exit(130)
