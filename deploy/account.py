"""The AWS account: whose it is, and whether it has what cluster.yaml asks for."""

import difflib
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from deploy.asking import NO_ANSWER, client, looked_at, node_configs, said, subnets, zones
from deploy.cluster_file import Config
from deploy.finding import Finding, ok, warning, wrong
from deploy.nodes import check_images, check_instance_types, check_launch, check_quotas_of

MAKE_PROFILES = "make both from deploy/profiles.yaml (the command is at the top of cluster.yaml)"
_SPOT_ROLE = "AWSServiceRoleForEC2Spot"
_MAKE_SPOT_ROLE = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"


def check_account(session: Any, config: Config) -> list[Finding]:
    """Everything that `ray up` and the head's autoscaler need of AWS.

    Args:
        session: a ``boto3.Session``.
        config: the cluster, as Ray has prepared it.
    """
    found = [*check_region(session, config)]
    if not any(finding.verdict == "wrong" for finding in found):
        found += check_caller(session, config)
    if any(finding.verdict == "wrong" for finding in found):
        return [*found, warning("AWS", "nothing else of it was looked at")]
    for check in (
        check_zones,
        check_profiles,
        check_spot_role,
        check_images,
        check_instance_types,
        check_quotas_of,
        check_launch,
    ):
        found += check(session, config)
    return found


def check_region(session: Any, config: Config) -> list[Finding]:
    """A name with a slip would be looked for on the network, for a long time."""
    region = config["provider"]["region"]
    partitions = session.get_available_partitions()
    known = [name for one in partitions for name in session.get_available_regions("ec2", one)]
    if region in known:
        return []
    close = difflib.get_close_matches(region, known, 1)
    remedy = f"did you mean {close[0]}?" if close else "name your bucket's in cluster.yaml"
    return [wrong("region", f"AWS has none that is named {region}: {remedy}")]


def check_caller(session: Any, config: Config) -> list[Finding]:
    """Whose credentials these are, if there are any."""
    subject, login = "credentials", "log in (aws configure, aws sso login, or AWS_PROFILE)"
    try:
        who = client(session, "sts", config).get_caller_identity()
    except ClientError as error:
        return [wrong(subject, f"AWS does not take them, {': '.join(said(error))}: {login}")]
    except NO_ANSWER as error:
        return [wrong(subject, f"{str(error).rstrip('.')}: {login}")]
    return [ok(subject, f"{who['Arn']}, account {who['Account']}")]


def check_zones(session: Any, config: Config) -> list[Finding]:
    """The zones are the region's, and have subnets whose nodes can be reached."""
    region = config["provider"]["region"]
    subject = f"region {region}"

    def look() -> list[Finding]:
        ec2 = client(session, "ec2", config)
        answer = ec2.describe_availability_zones()["AvailabilityZones"]
        there = sorted(zone["ZoneName"] for zone in answer if zone["State"] == "available")
        asked = zones(config) or there
        strange = [zone for zone in asked if zone not in there]
        if strange:
            text = f"has no zone {', '.join(strange)}: name some of {', '.join(there)}"
            return [wrong(subject, f"it {text} as availability_zone")]
        usable = subnets(ec2, config)
        if not usable:
            text = "no subnet that gives its nodes a public address"
            remedy = "aws ec2 create-default-vpc, or name your own subnets (SubnetIds)"
            return [wrong(subject, f"{text} in {', '.join(asked)}: {remedy}")]
        where = sorted({subnet["AvailabilityZone"] for subnet in usable})
        return [ok(subject, f"subnets in {', '.join(where)}")]

    return looked_at(subject, "ec2:DescribeAvailabilityZones", look, needed=True)


def check_profiles(session: Any, config: Config) -> list[Finding]:
    """The instance profiles exist, each with a role in it."""
    iam = client(session, "iam", config)
    found = []
    for name in sorted(set(_profiles(config))):
        subject = f"instance profile {name}"

        def look(name: str = name, subject: str = subject) -> list[Finding]:
            try:
                profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            except iam.exceptions.NoSuchEntityException:
                return [wrong(subject, f"it does not exist: {MAKE_PROFILES}")]
            if not profile["Roles"]:
                return [wrong(subject, f"it has no role: delete it, and {MAKE_PROFILES}")]
            return [ok(subject, f"role {profile['Roles'][0]['RoleName']}")]

        found += looked_at(subject, "iam:GetInstanceProfile", look, needed=False)
    return found


def _profiles(config: Config) -> Iterator[str]:
    for node in node_configs(config).values():
        profile = node.get("IamInstanceProfile", {})
        name = profile.get("Name") or profile.get("Arn", "").rpartition("/")[2]
        if name:
            yield name


def check_spot_role(session: Any, config: Config) -> list[Finding]:
    """AWS makes this role with an account's first spot node, but not for the head to ask for it."""
    markets = [node.get("InstanceMarketOptions", {}) for node in node_configs(config).values()]
    if not any(market.get("MarketType") == "spot" for market in markets):
        return []
    iam = client(session, "iam", config)

    def look() -> list[Finding]:
        try:
            iam.get_role(RoleName=_SPOT_ROLE)
        except iam.exceptions.NoSuchEntityException:
            text = f"this account has never had a spot node, and lacks the role {_SPOT_ROLE}"
            return [wrong("spot role", f"{text}: {_MAKE_SPOT_ROLE}")]
        return [ok("spot role", _SPOT_ROLE)]

    return looked_at("spot role", "iam:GetRole", look, needed=False)
