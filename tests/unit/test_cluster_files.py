"""The files that describe a cluster and a submission: Ray accepts them, and they agree."""

import hashlib
import json
import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray._private.runtime_env.packaging import create_package, get_uri_for_directory
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.runtime_env import RuntimeEnv

from job.config import JobConfig

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"  # what a node needs
DEVELOPERS_LOCK = ROOT / "requirements-dev.lock"  # and what a developer needs besides
LOCKS = pytest.mark.parametrize("lock", [LOCK, DEVELOPERS_LOCK], ids=["node", "developer"])


@pytest.fixture
def runtime_env(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """runtime_env.yaml as Ray reads it: validated, from the root of the repository."""
    monkeypatch.chdir(ROOT)
    return RuntimeEnv(**yaml.safe_load(Path("runtime_env.yaml").read_text()))


@pytest.fixture
def cluster() -> dict[str, Any]:
    """cluster.yaml with Ray's AWS defaults filled in: what `ray up` acts on."""
    return prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


@pytest.fixture
def autoscaling(cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AutoscalingConfig:
    """What the autoscaler on the head makes of the cluster, which `ray up` has prepared already."""
    # It hashes the files that are copied to the nodes.
    monkeypatch.chdir(ROOT)
    return AutoscalingConfig(prepare_config(cluster))


@pytest.fixture
def head(cluster: dict[str, Any]) -> dict[str, Any]:
    return cluster["available_node_types"][cluster["head_node_type"]]


@pytest.fixture
def workers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    types = cluster["available_node_types"]
    return [types[name] for name in types if name != cluster["head_node_type"]]


def locked_versions(lock: Path = LOCK) -> dict[str, str]:
    lines = [line.split(" #")[0].strip() for line in lock.read_text().splitlines()]
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pins}


def runtime_requirements(runtime_env: dict[str, Any]) -> list[Requirement]:
    packages = runtime_env["pip"]["packages"]
    return [Requirement(line) for line in packages if not line.startswith(("#", "-"))]


# The locks


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@LOCKS
def test_a_lock_pins_every_package_to_one_exact_public_version(lock: Path) -> None:
    versions = locked_versions(lock)

    assert versions
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in versions.values())


@LOCKS
def test_a_lock_names_no_registry(lock: Path) -> None:
    assert not re.search(r"://|--\S*(index|find-links|trusted-host)", lock.read_text())


def test_the_locks_satisfy_pyproject() -> None:
    runtime = project()["dependencies"]

    for lock, lines in ((LOCK, runtime), (DEVELOPERS_LOCK, runtime + development_tools())):
        versions = locked_versions(lock)
        for requirement in map(Requirement, lines):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} but {version} in {lock}"


def test_a_developer_has_all_that_a_node_has_at_the_same_versions() -> None:
    assert locked_versions(LOCK).items() < locked_versions(DEVELOPERS_LOCK).items()


def test_a_node_gets_no_development_tools() -> None:
    tools = {canonicalize_name(Requirement(line).name) for line in development_tools()}

    assert tools
    assert not tools & locked_versions(LOCK).keys()


def development_tools() -> list[str]:
    return [line for lines in project()["optional-dependencies"].values() for line in lines]


@LOCKS
def test_what_builds_the_project_without_a_registry_is_pinned_as_well(lock: Path) -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (builder,) = map(Requirement, config["build-system"]["requires"])

    assert builder.name == "setuptools"
    assert builder.specifier.contains(locked_versions(lock)["setuptools"])


# runtime_env.yaml


def test_the_runtime_env_installs_the_project_s_dependencies_at_the_lock_s_versions(
    runtime_env: dict[str, Any],
) -> None:
    direct = {
        Requirement(line).name: Requirement(line).extras for line in project()["dependencies"]
    }
    requirements = runtime_requirements(runtime_env)
    versions = locked_versions()

    assert {r.name: r.extras for r in requirements} == direct
    assert {r.name: str(r.specifier) for r in requirements} == {
        name: f"=={versions[canonicalize_name(name)]}" for name in direct
    }


def test_the_runtime_env_holds_indirect_dependencies_to_the_lock(
    runtime_env: dict[str, Any],
) -> None:
    constraint = "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/requirements.lock"

    assert constraint in runtime_env["pip"]["packages"]


def test_a_changed_lock_is_a_new_environment_for_ray(runtime_env: dict[str, Any]) -> None:
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]

    assert f"# requirements.lock {digest}" in runtime_env["pip"]["packages"], "run: make lock"


def test_the_runtime_env_carries_no_secret_and_no_credentials(runtime_env: dict[str, Any]) -> None:
    names = " ".join(runtime_env["env_vars"])

    assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", names)


def test_the_upload_has_the_code_and_the_lock_and_leaves_the_rest_at_home(
    runtime_env: dict[str, Any], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    travels = {
        "job/__init__.py",
        "job/demo/model/model.safetensors",
        "job/kernels/build.py",
        "pyproject.toml",
        "requirements.lock",
        "runtime_env.yaml",
    }
    stays = {
        ".env",
        ".git/objects/pack/huge.pack",
        ".mypy_cache/3.11/job.data.json",
        ".pytest_cache/v/cache/lastfailed",
        ".ruff_cache/0/1",
        ".venv/bin/python",
        "build/lib/job/__init__.py",
        "data/images/1.jpg",
        "demo-output/maps/1.parquet",
        "dist/job.whl",
        "job/__pycache__/cli.cpython-311.pyc",
        "key.pem",
        "output/maps/1.parquet",
        "outputs/maps/1.parquet",
        "ray_batch_segmentation.egg-info/PKG-INFO",
    }
    for name in travels | stays:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)

    package = tmp_path / "package.zip"
    create_package(str(checkout), package, include_gitignore=True, excludes=runtime_env["excludes"])

    assert set(zipfile.ZipFile(package).namelist()) == travels


def test_nothing_that_stays_at_home_changes_the_identity_of_the_upload(
    runtime_env: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "cli.py").write_text("")

    def uri() -> str:
        return get_uri_for_directory(
            str(tmp_path), include_gitignore=True, excludes=runtime_env["excludes"]
        )

    before = uri()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (tmp_path / "job" / "__pycache__").mkdir()
    (tmp_path / "job" / "__pycache__" / "cli.pyc").write_text("")
    assert uri() == before

    (tmp_path / "job" / "cli.py").write_text("pass")
    assert uri() != before


# cluster.yaml


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_no_default_of_ray_is_taken_over_unseen(cluster: dict[str, Any]) -> None:
    text = json.dumps(cluster)

    assert "ray-wheels" not in text, "Ray's default installs a nightly build"
    assert "0.0.0.0" not in text
    assert not re.search(r"pip install[^\"]*boto3", text)


def test_every_type_of_node_starts_in_a_container_of_its_own_image(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig
) -> None:
    version = locked_versions()["ray"]

    for name, node in cluster["available_node_types"].items():
        docker = autoscaling.get_docker_config(name)
        kind = "gpu" if node["resources"].get("GPU") else "cpu"
        assert docker["image"] == f"rayproject/ray:{version}-py311-{kind}"
        assert docker["container_name"] == cluster["docker"]["container_name"]


def test_a_new_type_of_workers_has_an_image_and_no_gpus_by_default(
    cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    workers = cluster["available_node_types"]["gpu_worker"]
    plain = {key: value for key, value in workers.items() if key != "docker"}
    cluster["available_node_types"]["cpu_worker"] = {**plain, "resources": {"CPU": 16}}
    autoscaling = AutoscalingConfig(prepare_config(cluster))

    assert autoscaling.get_docker_config("cpu_worker")["image"].endswith("-cpu")
    assert "--gpus all" not in run_options(autoscaling, "cpu_worker")


def test_containers_see_gpus_exactly_where_there_are_some(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig
) -> None:
    for name, node in cluster["available_node_types"].items():
        assert ("--gpus all" in run_options(autoscaling, name)) == ("GPU" in node["resources"])


def run_options(autoscaling: AutoscalingConfig, node_type: str) -> list[str]:
    """What Ray adds to `docker run` on a node: the options of all nodes and those of its role."""
    docker = autoscaling.get_docker_config(node_type)
    role = "head" if node_type == autoscaling.get_head_node_type() else "worker"
    return [*docker["run_options"], *docker.get(f"{role}_run_options", [])]


def environment(autoscaling: AutoscalingConfig, node_type: str) -> dict[str, str]:
    """The variables that `docker run` sets on a node."""
    options = [option.partition(" ") for option in run_options(autoscaling, node_type)]
    return dict(value.split("=", 1) for name, _, value in options if name == "-e")


def test_every_node_installs_the_lock_once_before_ray_starts(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig
) -> None:
    install = ["pip install -q --no-cache-dir -r ~/requirements.lock"]

    # `ray up` sets the head up, and the head's autoscaler sets up the workers.
    assert cluster["head_setup_commands"] == install
    for name in cluster["available_node_types"]:
        assert autoscaling.get_worker_setup_commands(name) == install
    assert (ROOT / cluster["file_mounts"]["~/requirements.lock"]).samefile(LOCK)


def test_the_autoscaler_starts_at_no_worker_and_ends_at_the_most_that_the_cluster_may_have(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig
) -> None:
    types = autoscaling.get_node_type_configs()
    workers = [types[name] for name in types if name != cluster["head_node_type"]]

    # The head counts itself among its type's nodes.
    assert types[cluster["head_node_type"]].max_worker_nodes == 1
    assert [worker.min_worker_nodes for worker in workers] == [0] * len(workers)
    assert sum(worker.max_worker_nodes for worker in workers) >= cluster["max_workers"]
    assert autoscaling.get_idle_timeout_s() == 60 * cluster["idle_timeout_minutes"]
    for name, node in cluster["available_node_types"].items():
        assert autoscaling.get_node_resources(name) == node["resources"]


def test_a_stopped_job_has_the_time_that_it_may_take_to_end(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig, runtime_env: dict[str, Any]
) -> None:
    needed = JobConfig.model_fields["stop_grace"].default + 10

    for name in cluster["available_node_types"]:
        assert int(environment(autoscaling, name)["RAY_JOB_STOP_WAIT_TIME_S"]) >= needed
    assert int(runtime_env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= needed


def test_dashboard_and_jobs_api_answer_on_localhost_only(cluster: dict[str, Any]) -> None:
    start = next(c for c in cluster["head_start_ray_commands"] if "ray start --head" in c)

    assert re.findall(r"--dashboard-host[= ](\S+)", start) == ["127.0.0.1"]


def test_every_node_demands_the_token_and_has_it(
    cluster: dict[str, Any], autoscaling: AutoscalingConfig
) -> None:
    for name in cluster["available_node_types"]:
        assert environment(autoscaling, name)["RAY_AUTH_MODE"] == "token"
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_head_takes_no_work_and_is_not_a_spot_node(head: dict[str, Any]) -> None:
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_gpu_nodes_that_come_and_go(
    cluster: dict[str, Any], workers: list[dict[str, Any]]
) -> None:
    for worker in workers:
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["resources"]["GPU"] == 1
        assert worker["min_workers"] == 0
        assert 1 <= worker["max_workers"] <= cluster["max_workers"]
    assert cluster["idle_timeout_minutes"] <= 15
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_rights_come_from_instance_profiles_and_no_key_is_written_down(
    cluster: dict[str, Any], head: dict[str, Any], workers: list[dict[str, Any]]
) -> None:
    profiles = [n["node_config"]["IamInstanceProfile"]["Name"] for n in [head, *workers]]
    text = (ROOT / "cluster.yaml").read_text()

    assert len(set(profiles)) == 1 + len(workers), "the workers need no right to start nodes"
    assert not re.search(r"AKIA|ASIA|aws_secret|aws_access|AWS_SECRET|AWS_ACCESS", text)


def test_disks_are_encrypted_and_credentials_ask_for_a_session_token(
    head: dict[str, Any], workers: list[dict[str, Any]]
) -> None:
    for node in [head, *workers]:
        disks = node["node_config"]["BlockDeviceMappings"]
        assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["VolumeSize"] >= 100 for disk in disks)
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


# The way in


def test_make_without_a_target_lists_the_targets() -> None:
    shown = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True)

    for target in ("demo", "quick", "test", "check", "lint", "cluster-check", "lock", "clean"):
        assert f"make {target}" in shown.stdout


def test_make_refuses_a_python_outside_the_supported_range(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "requirements-dev.lock").write_text("")

    refused = subprocess.run(
        ["make", "-C", tmp_path, "test", "PYTHON=false"], capture_output=True, text=True
    )

    assert refused.returncode != 0
    assert "Python 3.11 to 3.13 is needed" in refused.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_installs_the_developers_lock_and_nodes_the_other() -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert re.findall(r"-m pip install .*-r (\S+)", makefile) == ["requirements-dev.lock"]
    assert "requirements-dev.lock" not in (ROOT / "cluster.yaml").read_text()
    assert "requirements-dev.lock" not in (ROOT / "runtime_env.yaml").read_text()


def test_continuous_integration_runs_the_tests_and_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert "make check" in script.read_text()
