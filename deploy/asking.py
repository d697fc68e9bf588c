"""Asking AWS: within seconds, and every refusal becomes a finding."""

from collections.abc import Callable
from typing import Any

from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from deploy.cluster_file import Config
from deploy.finding import Finding, warning, wrong

NO_ANSWER = (BotoCoreError, ResponseParserError)
# botocore gives the status where an answer has no code that it understands.
_DENIED = ("AccessDenied", "Unauthorized", "NotAuthorized", "403")


def client(session: Any, service: str, config: Config) -> Any:
    """A client that gives up in seconds, not in minutes."""
    patience = ClientConfig(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3})
    return session.client(service, region_name=config["provider"]["region"], config=patience)


def looked_at(
    subject: str, right: str, look: Callable[[], list[Finding]], *, needed: bool
) -> list[Finding]:
    """What a look at AWS found, or why AWS does not let us look.

    Args:
        subject: what is looked at.
        right: the right that looking needs.
        look: asks AWS.
        needed: whether `ray up` needs that right as well.
    """
    try:
        return look()
    except ClientError as error:
        code, message = said(error)
        if any(word in code for word in _DENIED):
            if needed:
                return [wrong(subject, f"you lack {right}, which `ray up` needs: {message}")]
            return [warning(subject, f"you lack {right}, so nobody looked: {message}")]
        return [wrong(subject, f"AWS answers {code}: {message}")]
    except NO_ANSWER as error:
        return [wrong(subject, f"AWS cannot be asked: {error}")]


def said(error: ClientError) -> tuple[str, str]:
    """AWS's code for an error, and its words."""
    told = error.response.get("Error", {})
    # The rest is a kilobyte that only AWS can decode.
    message = str(told.get("Message", error)).partition(" Encoded authorization failure")[0]
    return str(told.get("Code", "")), message


def zones(config: Config) -> list[str]:
    """The availability zones that the cluster may use, in its order; none for all."""
    named = config["provider"].get("availability_zone") or ""
    return [zone.strip() for zone in named.split(",") if zone.strip()]


def subnets(ec2: Any, config: Config) -> list[dict[str, Any]]:
    """The subnets that Ray would choose from, when none is named."""
    inside, asked = config["provider"].get("use_internal_ips", False), zones(config)
    return [
        subnet
        for page in ec2.get_paginator("describe_subnets").paginate()
        for subnet in page["Subnets"]
        if (inside or subnet["MapPublicIpOnLaunch"])
        and (not asked or subnet["AvailabilityZone"] in asked)
    ]


def node_configs(config: Config) -> dict[str, dict[str, Any]]:
    """What AWS is asked for, for each type of node."""
    return {name: node["node_config"] for name, node in config["available_node_types"].items()}
