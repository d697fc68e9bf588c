"""Looking before money is spent: `make cluster-check`, and the template of the nodes' rights."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from deploy.cluster_file import read
from deploy.quotas import check_quotas
from tests.aws import Aws, make_profiles, moto_server

ROOT = Path(__file__).resolve().parents[2]
KNOWN_IMAGE = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with moto_server(tmp_path_factory.mktemp("aws") / "moto.log") as aws:
        yield aws


@pytest.fixture
def aws(server: Aws) -> Aws:
    """An AWS account with nothing in it."""
    server.post("reset-auth", b"inf")
    server.post("reset")
    return server


@pytest.fixture
def ready(aws: Aws) -> Aws:
    """An account that has what the cluster needs."""
    make_profiles(aws)
    aws.client("iam").create_role(
        RoleName="AWSServiceRoleForEC2Spot", AssumeRolePolicyDocument="{}"
    )
    return aws


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with a token, as the top of cluster.yaml tells to make it, and programs."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("a" * 64)
    token.chmod(0o600)
    # What is looked for on PATH, and never run: this machine need not have it.
    programs = tmp_path / "home" / "bin"
    programs.mkdir()
    for name in ("ssh", "rsync"):
        (programs / name).touch(0o755)
    return tmp_path / "home"


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    """cluster.yaml, with a machine image that moto knows."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for node in config["available_node_types"].values():
        node["node_config"]["ImageId"] = KNOWN_IMAGE
    return config


def check(
    config: dict[str, Any] | Path, home: Path, aws: Aws | None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run it as make does, from the root of the repository; an empty value takes a name away."""
    path = config if isinstance(config, Path) else home / "cluster.yaml"
    if not isinstance(config, Path):
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    env = {
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "AWS_EC2_METADATA_DISABLED": "true",
        **(aws.environment if aws else {}),
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "deploy.check", str(path)],
        cwd=ROOT,
        env={name: value for name, value in env.items() if value},
        capture_output=True,
        text=True,
        timeout=120,
    )


def lines(finished: subprocess.CompletedProcess[str], verdict: str) -> dict[str, str]:
    """What it says of this verdict, by what was looked at; a traceback is none."""
    assert not finished.stderr, finished.stderr
    found = [re.fullmatch(rf"{verdict} +(.*?): (.*)", one) for one in finished.stdout.splitlines()]
    return {one[1]: one[2] for one in found if one}


# The account


def test_an_account_and_a_machine_that_have_everything_pass(
    ready: Aws, home: Path, cluster: dict[str, Any]
) -> None:
    finished = check(cluster, home, ready)

    assert finished.returncode == 0, finished.stdout
    good = lines(finished, "ok")
    assert good["credentials"] == "arn:aws:sts::123456789012:user/moto, account 123456789012"
    assert good["region us-west-2"] == "subnets in us-west-2a, us-west-2b, us-west-2c"
    assert "HeadRole" in good["instance profile ray-batch-segmentation-head"]
    assert "WorkerRole" in good["instance profile ray-batch-segmentation-worker"]
    assert good["machine image"].startswith("ami-")
    assert good["m7i.xlarge of head"].startswith("4 vCPU, 0 GPU, offered in us-west-2a")
    assert good["g6.4xlarge of gpu_worker"].startswith("16 vCPU, 1 GPU, offered in us-west-2a")
    assert set(lines(finished, "warning")) == {
        "spot quota, G and VT instances",
        "on-demand quota, Standard instances",
    }, "moto has no quotas of EC2"


def test_missing_profiles_and_roles_are_a_line_each_with_the_remedy(
    aws: Aws, home: Path, cluster: dict[str, Any]
) -> None:
    aws.client("iam").create_instance_profile(InstanceProfileName="ray-batch-segmentation-head")
    finished = check(cluster, home, aws)

    assert finished.returncode == 1
    bad = lines(finished, "wrong")
    assert "has no role" in bad["instance profile ray-batch-segmentation-head"]
    assert "does not exist" in bad["instance profile ray-batch-segmentation-worker"]
    assert "deploy/profiles.yaml" in bad["instance profile ray-batch-segmentation-worker"]
    assert "create-service-linked-role" in bad["spot role"]
    assert set(bad) >= {"spot role", "instance profile ray-batch-segmentation-head"}


def test_an_image_a_zone_and_an_instance_type_that_are_not_there_are_named(
    ready: Aws, home: Path, cluster: dict[str, Any]
) -> None:
    types = cluster["available_node_types"]
    types["head"]["node_config"]["ImageId"] = "resolve:ssm:/aws/service/no-such-image"
    types["gpu_worker"]["node_config"]["InstanceType"] = "g6.5xlarge"
    cluster["provider"]["availability_zone"] = "us-west-2a,eu-west-1a"
    bad = lines(check(cluster, home, ready), "wrong")

    assert "no zone eu-west-1a" in bad["region us-west-2"]
    assert "no parameter /aws/service/no-such-image" in bad["machine image"]
    assert "not offered" in bad["g6.5xlarge of gpu_worker"]


def test_resources_that_a_node_does_not_have_are_refused(
    ready: Aws, home: Path, cluster: dict[str, Any]
) -> None:
    cluster["available_node_types"]["gpu_worker"]["resources"] = {"CPU": 16, "GPU": 4}
    bad = lines(check(cluster, home, ready), "wrong")

    assert "promises 4 GPU, and it has 1" in bad["g6.4xlarge of gpu_worker"]


def test_a_slip_in_the_region_is_found_without_the_network(
    home: Path, cluster: dict[str, Any]
) -> None:
    cluster["provider"]["region"] = "us-wset-2"
    finished = check(cluster, home, None)

    assert finished.returncode == 1
    assert lines(finished, "wrong") == {
        "region": "AWS has none that is named us-wset-2: did you mean us-west-2?"
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
        ({"AWS_ACCESS_KEY_ID": "only-half"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_credentials_that_are_not_there_are_one_line(
    home: Path, cluster: dict[str, Any], more: dict[str, str], said: str
) -> None:
    finished = check(cluster, home, None, **more)

    assert finished.returncode == 1
    assert said in lines(finished, "wrong")["credentials"]


def test_an_endpoint_that_does_not_answer_is_one_line(home: Path, cluster: dict[str, Any]) -> None:
    dead = Aws("http://127.0.0.1:9")
    # Once is enough: how often boto3 tries is not looked at here.
    finished = check(cluster, home, dead, AWS_MAX_ATTEMPTS="1")

    assert finished.returncode == 1
    assert "http://127.0.0.1:9" in lines(finished, "wrong")["credentials"]


def test_rights_that_are_missing_are_the_lines_of_what_they_are_for(
    ready: Aws, home: Path, cluster: dict[str, Any]
) -> None:
    iam = ready.client("iam")
    iam.create_user(UserName="somebody")
    may = {"Effect": "Allow", "Action": ["ec2:Describe*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    iam.put_user_policy(UserName="somebody", PolicyName="look", PolicyDocument=policy)
    key = iam.create_access_key(UserName="somebody")["AccessKey"]
    ready.post("reset-auth", b"0")
    finished = check(
        cluster,
        home,
        ready,
        AWS_ACCESS_KEY_ID=key["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"],
    )

    assert finished.returncode == 1
    bad, unseen = lines(finished, "wrong"), lines(finished, "warning")
    assert "user/somebody" in lines(finished, "ok")["credentials"]
    assert "ssm:GetParameters, which `ray up` needs" in bad["machine image"]
    assert "ec2:RunInstances" in bad["launch of head"]
    assert "nobody looked" in unseen["instance profile ray-batch-segmentation-head"]
    assert "nobody looked" in unseen["spot role"]
    assert any("quota" in subject for subject in unseen)


# Quotas, which moto does not have: botocore's own stand-in holds the answers to AWS's shapes


def quota_lines(cluster: dict[str, Any], home: Path, *values: float) -> list[str]:
    path = home / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster, sort_keys=False))
    config, _ = read(path)
    assert config is not None
    quotas = boto3.client(
        "service-quotas", "us-west-2", aws_access_key_id="-", aws_secret_access_key="-"
    )
    with Stubber(quotas) as answers:
        for code, value in zip(("L-1216C47A", "L-3819A6DF"), values, strict=True):
            answers.add_response(
                "get_service_quota",
                {"Quota": {"QuotaCode": code, "Value": value}},
                {"ServiceCode": "ec2", "QuotaCode": code},
            )
        found = check_quotas(quotas, config, {"m7i.xlarge": 4, "g6.4xlarge": 16})
        answers.assert_no_pending_responses()
    return [str(finding) for finding in found]


def test_quotas_that_hold_the_whole_cluster_are_fine(cluster: dict[str, Any], home: Path) -> None:
    head, workers = quota_lines(cluster, home, 5, 128)

    assert head == "ok       on-demand quota, Standard instances: 5 vCPU, and 1 node may ask for 4"
    assert workers.startswith("ok       spot quota, G and VT instances: 128 vCPU, and 8 nodes")


def test_a_quota_for_fewer_workers_says_how_many_and_how_to_ask_for_more(
    cluster: dict[str, Any], home: Path
) -> None:
    _, some = quota_lines(cluster, home, 5, 64)
    _, none = quota_lines(cluster, home, 5, 0)

    assert some.startswith("wrong ")
    assert "enough for 4 of the 8 nodes" in some
    assert "--quota-code L-3819A6DF --desired-value 128, or set max_workers to 4" in some
    assert "enough for 0 of the 8 nodes" in none
    assert "max_workers" not in none


def test_types_that_share_a_quota_share_the_cluster_s_number_of_workers(
    cluster: dict[str, Any], home: Path
) -> None:
    types = cluster["available_node_types"]
    types["more"] = types["gpu_worker"]
    _, workers = quota_lines(cluster, home, 5, 144)

    assert "wrong" not in workers, "8 workers of both types together, not 16"


# The machine


def test_what_is_missing_on_this_machine_is_a_line_each(
    ready: Aws, home: Path, cluster: dict[str, Any], tmp_path: Path
) -> None:
    (home / ".ray" / "auth_token").unlink()
    cluster["file_mounts"]["~/other"] = "no-such-file"
    finished = check(cluster, home, ready, PATH=str(tmp_path), RAY_AUTH_MODE="")

    assert finished.returncode == 1
    bad = lines(finished, "wrong")
    assert "apt-get install rsync" in bad["rsync"]
    assert "apt-get install openssh-client" in bad["ssh"]
    assert "export RAY_AUTH_MODE=token" in bad["RAY_AUTH_MODE"]
    assert "ray get-auth-token --generate" in bad["token"]
    assert "no-such-file" in bad["files for the nodes"]


@pytest.mark.parametrize(
    ("content", "mode", "more", "said"),
    [
        ("", 0o600, {}, "is empty"),
        ("\n", 0o600, {}, "is empty"),
        ("abc", 0o644, {}, "permissions 0644, for others too: chmod 600"),
        ("abc", 0o660, {}, "permissions 0660, for others too: chmod 600"),
        ("abc", 0o600, {"RAY_AUTH_TOKEN": "another"}, "unset RAY_AUTH_TOKEN"),
        ("abc", 0o600, {"RAY_AUTH_TOKEN_PATH": "/no-such"}, "unset RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_a_token_that_would_not_do_is_said_before_the_cluster_is_there(
    home: Path, content: str, mode: int, more: dict[str, str], said: str, cluster: dict[str, Any]
) -> None:
    token = home / ".ray" / "auth_token"
    token.write_text(content)
    token.chmod(mode)
    bad = lines(check(cluster, home, None, **more), "wrong")

    assert said in bad["token"]


# The file


def test_a_file_that_the_autoscaler_would_fail_on_after_the_launch_is_refused(
    home: Path, cluster: dict[str, Any]
) -> None:
    docker = cluster["docker"]
    docker["head_image"] = docker["worker_image"] = docker.pop("image")
    bad = lines(check(cluster, home, None), "wrong")

    assert "docker.image is missing" in bad["image of gpu_worker"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "provider.type is None"),
        ("- a list", "provider.type is None"),
        ("provider: {type: gcp}", "provider.type is gcp"),
        ("provider: [", "cannot be read"),
        ("cluster_name: c\nprovider: {type: aws, region: r}\nmax_worker: 8", "max_worker"),
    ],
)
def test_a_file_that_is_no_cluster_on_aws_is_one_line(home: Path, text: str, said: str) -> None:
    path = home / "broken.yaml"
    path.write_text(text)
    finished = check(path, home, None)

    assert finished.returncode == 1
    assert said in lines(finished, "wrong")[str(path)]


def test_a_file_that_is_not_there_is_one_line(home: Path) -> None:
    finished = check(home / "other.yaml", home, None)

    assert finished.returncode == 1
    assert "no such file" in lines(finished, "wrong")[str(home / "other.yaml")]


def test_make_has_it() -> None:
    shown = subprocess.run(
        ["make", "-n", "-C", ROOT, "cluster-check"], capture_output=True, text=True, check=True
    )

    assert "-m deploy.check cluster.yaml" in shown.stdout


# The rights


def listed_rights() -> dict[str, set[str]]:
    """The rights that the comment of cluster.yaml lists, by the profile; the head has both."""
    text = (ROOT / "cluster.yaml").read_text().partition("# IAM.")[2].partition("# Whoever")[0]
    parts = re.split(r"(ray-batch-segmentation-\w+):", text)[1:]
    rights = {
        name: set(re.findall(r"\b(?:s3|ec2|ssm|iam):[A-Z]\w+\*?", part))
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    rights["ray-batch-segmentation-head"] |= rights["ray-batch-segmentation-worker"]
    return rights


def granted(aws: Aws, profile: str) -> list[dict[str, Any]]:
    """The statements of all policies of a profile's role."""
    iam = aws.client("iam")
    [role] = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    name = role["RoleName"]
    assert not iam.list_role_policies(RoleName=name)["PolicyNames"]
    statements: list[dict[str, Any]] = []
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        arn = policy["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
        statements += found["Document"]["Statement"]
    return statements


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_template_makes_the_profiles_that_the_cluster_names_with_the_rights_it_lists(
    aws: Aws, cluster: dict[str, Any]
) -> None:
    make_profiles(aws)
    types = cluster["available_node_types"].values()
    named = {node["node_config"]["IamInstanceProfile"]["Name"] for node in types}
    rights = listed_rights()

    assert named == set(rights)
    for profile, listed in rights.items():
        statements = granted(aws, profile)
        assert {one["Effect"] for one in statements} == {"Allow"}
        assert {name for one in statements for name in as_list(one["Action"])} == listed


def test_each_right_reaches_no_further_than_the_data_and_the_workers_role(aws: Aws) -> None:
    make_profiles(aws)
    iam = aws.client("iam")
    worker = iam.get_instance_profile(InstanceProfileName="ray-batch-segmentation-worker")
    [role] = worker["InstanceProfile"]["Roles"]

    reach: dict[str, set[str]] = {}
    for one in granted(aws, "ray-batch-segmentation-head"):
        for action in as_list(one["Action"]):
            reach.setdefault(action, set()).update(as_list(one["Resource"]))
    output = {"arn:aws:s3:::results/maps*"}
    assert reach["s3:ListBucket"] == {"arn:aws:s3:::images", "arn:aws:s3:::results"}
    assert reach["s3:GetObject"] == {"arn:aws:s3:::images/*"} | output
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
        assert reach[action] == output
    assert reach["iam:PassRole"] == {role["Arn"]}


def test_only_ec2_may_take_the_roles(aws: Aws) -> None:
    make_profiles(aws)
    for profile in aws.client("iam").list_instance_profiles()["InstanceProfiles"]:
        [trusted] = profile["Roles"][0]["AssumeRolePolicyDocument"]["Statement"]
        assert trusted["Principal"] == {"Service": "ec2.amazonaws.com"}
        assert trusted["Action"] == "sts:AssumeRole"


def test_the_command_at_the_top_of_cluster_yaml_gives_the_template_all_that_it_asks_for() -> None:
    command = (ROOT / "cluster.yaml").read_text().partition("cloudformation deploy")[2]
    given = re.findall(r"(\w+)=", command.partition("Once per machine")[0])
    text = (ROOT / "deploy" / "profiles.yaml").read_text().partition("\nResources:")[0]
    asked = yaml.safe_load(text)["Parameters"]

    assert set(given) <= set(asked)
    assert {name for name, one in asked.items() if "Default" not in one} <= set(given)
    assert "--template-file deploy/profiles.yaml" in command
