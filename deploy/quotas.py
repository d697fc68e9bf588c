"""The account's quotas of vCPUs, against what the cluster may grow to."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.cluster_file import Config
from deploy.finding import Finding, ok, warning, wrong

# AWS counts vCPUs by family and market. Newer families have quotas of their own: not known here.
_FAMILIES = {
    "Standard": re.compile(r"(a|c|d|h|im?|is|m|r|t|z)\d"),
    "G and VT": re.compile(r"(g|gr|vt)\d"),
    "P": re.compile(r"p[2-4]"),
}
_CODES = {
    ("Standard", "spot"): "L-34B43A08",
    ("Standard", "on-demand"): "L-1216C47A",
    ("G and VT", "spot"): "L-3819A6DF",
    ("G and VT", "on-demand"): "L-DB2E81BA",
    ("P", "spot"): "L-7212CCBC",
    ("P", "on-demand"): "L-417A185B",
}


def check_quotas(quotas: Any, config: Config, vcpus: Mapping[str, int]) -> list[Finding]:
    """Compare each quota that the cluster draws on with the most that it may ask for.

    Args:
        quotas: a client of AWS's service-quotas.
        config: the cluster, as Ray has prepared it.
        vcpus: of each type of instance.
    """
    found = []
    for (family, market), nodes in _groups(config).items():
        subject = f"{market} quota, {family} instances" if family else f"{market} quota"
        # Several types of workers share max_workers: the largest count, and the head.
        most = config["max_workers"] + 1
        sizes = sorted((vcpus.get(kind, 0) for kind in nodes), reverse=True)[:most]
        code = _CODES.get((family, market))
        if code is None or 0 in sizes:
            text = f"which one counts for {', '.join(sorted(set(nodes)))} is not known here"
            found.append(warning(subject, f"{text}: see Service Quotas, Amazon EC2"))
            continue
        found.append(_check(quotas, subject, code, sizes))
    return found


def _groups(config: Config) -> dict[tuple[str, str], list[str]]:
    """The nodes that may draw on each quota at a time, by their types of instances."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, node in config["available_node_types"].items():
        instance = node["node_config"]
        spot = instance.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        kind = instance.get("InstanceType", "")
        family = next((name for name, one in _FAMILIES.items() if one.match(kind)), "")
        is_head = name == config["head_node_type"]
        count = min(node["max_workers"], config["max_workers"]) + is_head
        if count:
            groups[family, "spot" if spot else "on-demand"] += [kind] * count
    return groups


def _check(quotas: Any, subject: str, code: str, sizes: list[int]) -> Finding:
    try:
        quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    except (BotoCoreError, ClientError) as error:
        return warning(subject, f"it cannot be read ({error}): see {code} in Service Quotas")
    asked, nodes = sum(sizes), f"{len(sizes)} {'node' if len(sizes) == 1 else 'nodes'}"
    if quota >= asked:
        return ok(subject, f"{quota:g} vCPU, and {nodes} may ask for {asked}")
    fits = int(quota // max(sizes))
    ask = (
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code}"
    )
    return wrong(
        subject,
        f"{quota:g} vCPU, enough for {fits} of the {nodes} that may ask for {asked}: "
        f"{ask} --desired-value {asked}" + (f", or set max_workers to {fits}" if fits else ""),
    )
