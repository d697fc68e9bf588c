"""The nodes: their machine images and types of instances exist, and may be launched, in numbers."""

from typing import Any

from botocore.exceptions import ClientError

from deploy.asking import client, looked_at, node_configs, said, subnets, zones
from deploy.cluster_file import Config
from deploy.finding import Finding, ok, wrong
from deploy.quotas import check_quotas

_IMAGE_BY_NAME = "resolve:ssm:"


def check_images(session: Any, config: Config) -> list[Finding]:
    """The machine images exist, those named by a parameter and those named themselves."""
    named = sorted({node.get("ImageId", "") for node in node_configs(config).values()} - {""})
    return [finding for name in named for finding in _check_image(session, config, name)]


def _check_image(session: Any, config: Config, name: str) -> list[Finding]:
    parameter = name.removeprefix(_IMAGE_BY_NAME)
    region = config["provider"]["region"]

    def resolve() -> list[Finding]:
        answer = client(session, "ssm", config).get_parameters(Names=[parameter])
        if not answer["Parameters"]:
            remedy = "see `aws ssm get-parameters-by-path --recursive --path`, or write an ami-..."
            text = f"{region} has no parameter {parameter}: {remedy} as ImageId"
            return [wrong("machine image", text)]
        return [ok("machine image", f"{answer['Parameters'][0]['Value']}, of {parameter}")]

    def find() -> list[Finding]:
        images = client(session, "ec2", config).describe_images(ImageIds=[name])["Images"]
        if not images:
            return [wrong("machine image", f"{region} has no {name}, or not for this account")]
        return [ok("machine image", f"{name}, {images[0].get('Name', 'without a name')}")]

    if name.startswith(_IMAGE_BY_NAME):
        return looked_at("machine image", "ssm:GetParameters", resolve, needed=True)
    return looked_at("machine image", "ec2:DescribeImages", find, needed=True)


def check_instance_types(session: Any, config: Config) -> list[Finding]:
    """Each type of instance can be had in the zones, and has what its resources promise."""
    found = []
    for node_type, node in config["available_node_types"].items():
        kind = node["node_config"].get("InstanceType", "")
        subject = f"{kind} of {node_type}"

        def look(
            kind: str = kind, subject: str = subject, node: dict[str, Any] = node
        ) -> list[Finding]:
            ec2 = client(session, "ec2", config)
            offers = ec2.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone",
                Filters=[{"Name": "instance-type", "Values": [kind]}],
            )
            there = {one["Location"] for page in offers for one in page["InstanceTypeOfferings"]}
            asked = set(zones(config)) or there
            where = ", ".join(sorted(there & asked))
            if not where:
                others = f" (it is in {', '.join(sorted(there))})" if there else ""
                text = f"not offered in {', '.join(sorted(asked)) or 'this region'}{others}"
                return [wrong(subject, f"{text}: change availability_zone or InstanceType")]
            [about] = ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
            gpus = sum(gpu["Count"] for gpu in about.get("GpuInfo", {}).get("Gpus", []))
            has = {"CPU": about["VCpuInfo"]["DefaultVCpus"], "GPU": gpus}
            promised = {name: node["resources"].get(name, 0) for name in has}
            for name, count in promised.items():
                if count > has[name]:
                    text = f"resources promises {count} {name}, and it has {has[name]}"
                    return [wrong(subject, f"{text}: correct resources in cluster.yaml")]
            return [ok(subject, f"{has['CPU']} vCPU, {gpus} GPU, offered in {where}")]

        found += looked_at(subject, "ec2:DescribeInstanceTypeOfferings", look, needed=True)
    return found


def check_quotas_of(session: Any, config: Config) -> list[Finding]:
    """The account may run as many vCPUs as the cluster may grow to."""
    subject = "quotas"

    def look() -> list[Finding]:
        nodes = node_configs(config).values()
        kinds = sorted({node["InstanceType"] for node in nodes if "InstanceType" in node})
        ec2 = client(session, "ec2", config)
        about = ec2.describe_instance_types(InstanceTypes=kinds)["InstanceTypes"]
        vcpus = {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in about}
        return check_quotas(client(session, "service-quotas", config), config, vcpus)

    return looked_at(subject, "ec2:DescribeInstanceTypes", look, needed=True)


def check_launch(session: Any, config: Config) -> list[Finding]:
    """AWS tells who may not launch a node, without launching it."""
    found = []
    for node_type, node in node_configs(config).items():
        subject = f"launch of {node_type}"

        def look(node: dict[str, Any] = node, subject: str = subject) -> list[Finding]:
            ec2 = client(session, "ec2", config)
            ours = ("SubnetIds", "SecurityGroupIds", "KeyName")
            asked = {name: value for name, value in node.items() if name not in ours}
            usable = node.get("SubnetIds") or [s["SubnetId"] for s in subnets(ec2, config)[:1]]
            if usable:
                asked["SubnetId"] = usable[0]
            try:
                ec2.run_instances(**asked, MinCount=1, MaxCount=1, DryRun=True)
            except ClientError as error:
                if said(error)[0] != "DryRunOperation":
                    raise
            return [ok(subject, "you may, by a trial without a launch")]

        rights = "ec2:RunInstances, ssm:GetParameters or iam:PassRole on the profile's role"
        found += looked_at(subject, rights, look, needed=True)
    return found
