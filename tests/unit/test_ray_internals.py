"""Ray's internals: the contract between this program and one version of Ray.

What is checked here is private to Ray, or not documented, so an upgrade may change it. After one,
this file fails first and says what has changed. Mend :mod:`job.cluster.ray_internals` (or the
module that a check names), and only then raise ``RAY`` and the pin in ``pyproject.toml``.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import threading
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

from job.cluster import submission

# The Ray that all of this fits.
RAY = "2.60.0"

ROOT = Path(__file__).resolve().parents[2]
MODULE = "job/cluster/ray_internals.py"

SELF = object()


def of_ray(name: str) -> Any:
    """What a name of Ray's such as ``package.module:Class.method`` stands for.

    It is the failure of a test when it is not there any more.
    """
    module, _, path = name.partition(":")
    try:
        return reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Ray {ray.__version__} has no {name} any more ({error}): mend {MODULE}")


def changed(what: str) -> str:
    return f"Ray {ray.__version__} differs from {RAY}: {what}"


def test_the_ray_that_this_fits_is_the_one_that_is_pinned_and_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [
        re.sub(r"\[.*\]", "", wanted)
        for wanted in project["dependencies"]
        if re.match(r"ray\b", wanted)
    ]
    assert pins == [f"ray=={RAY}"], "raise RAY with the pin, once the rest of this file is green"
    assert ray.__version__ == RAY, f"Ray {ray.__version__} is installed, and {RAY} is pinned"


def private_names() -> list[str]:
    """Every name that the module imports from Ray, read and not imported."""
    names = []
    for node in ast.walk(ast.parse((ROOT / MODULE).read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ray."):
            names += [f"{node.module}:{alias.name}" for alias in node.names]
    return sorted(names)


@pytest.mark.parametrize("name", private_names())
def test_a_name_that_is_imported_is_there(name: str) -> None:
    module, _, of_it = name.partition(":")
    try:
        importlib.import_module(f"{module}.{of_it}")
    except ModuleNotFoundError:  # no module, but something in one
        of_ray(name)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("ray._common.network_utils:build_address", ("10.0.0.1", "6379"), {}),
        ("ray._common.network_utils:parse_address", ("10.0.0.1:6379",), {}),
        ("ray._common.utils:get_default_ray_temp_dir", (), {}),
        (
            "ray._private.authentication.authentication_token_setup"
            ":maybe_enable_token_auth_if_token_available",
            (),
            {"warn_if_disabled": False},
        ),
        ("ray._private.authentication.authentication_utils:is_token_auth_enabled", (), {}),
        ("ray._private.grpc_utils:init_grpc_channel", ("10.0.0.1:6379",), {"options": ()}),
        ("ray._private.services:_find_address_from_flag", ("--temp_dir",), {}),
        ("ray._private.services:find_bootstrap_address", (None,), {}),
        ("ray._private.services:find_node_ids", (), {}),
        ("ray._private.state:state.get_cluster_config", (), {}),
        ("ray._private.utils:read_ray_address", ("/tmp/ray",), {}),
        ("ray.autoscaler.v2.sdk:get_cluster_status", ("10.0.0.1:6379",), {"timeout": 5}),
        (
            "ray.autoscaler._private.kuberay.node_provider:KubernetesHttpApiClient",
            ("namespace",),
            {},
        ),
        (
            "ray.autoscaler._private.kuberay.node_provider:KubernetesHttpApiClient.get",
            (SELF, "rayclusters/name"),
            {},
        ),
        (
            "ray.autoscaler._private.kuberay.autoscaling_config"
            ":_derive_autoscaling_config_from_ray_cr",
            ({},),
            {},
        ),
        ("ray.experimental.internal_kv:_internal_kv_get", ("key",), {}),
        (
            "ray.data._internal.execution.streaming_executor:StreamingExecutor.shutdown",
            (SELF,),
            {"force": True},
        ),
        (
            "ray.data._internal.execution.interfaces.physical_operator"
            ":PhysicalOperator.get_autoscaling_actor_pools",
            (SELF,),
            {},
        ),
        (
            "ray.data._internal.actor_autoscaler.autoscaling_actor_pool"
            ":AutoscalingActorPool.num_alive_actors",
            (SELF,),
            {},
        ),
        (
            "ray.data._internal.actor_autoscaler.autoscaling_actor_pool"
            ":AutoscalingActorPool.current_size",
            (SELF,),
            {},
        ),
    ],
)
def test_what_is_called_takes_what_it_is_given(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    signature = inspect.signature(of_ray(name))
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        pytest.fail(changed(f"{name}{signature} is not called as {MODULE} calls it: {error}"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ray._common.constants:HEAD_NODE_RESOURCE_NAME", "node:__internal_head__"),
        ("ray._private.ray_constants:DEBUG_AUTOSCALING_STATUS", "__autoscaling_status"),
        ("ray._private.worker:_worker_logs_enabled", True),
        (
            "ray._private.runtime_env.constants:RAY_JOB_CONFIG_JSON_ENV_VAR",
            "RAY_JOB_CONFIG_JSON_ENV_VAR",
        ),
    ],
)
def test_what_is_read_has_the_value_that_is_known(name: str, value: object) -> None:
    assert of_ray(name) == value, changed(f"{name} was {value!r}")


def test_the_options_of_a_channel_are_options() -> None:
    options = of_ray("ray._private.ray_constants:GLOBAL_GRPC_OPTIONS")
    assert all(isinstance(name, str) for name, _ in options), changed(f"{options}")


@pytest.mark.parametrize(
    "name",
    [
        "ray.data.preprocessor:Preprocessor.fit_status",
        "ray.data.preprocessor:Preprocessor.FitStatus.NOT_FITTED",
        "ray.data.preprocessor:Preprocessor.FitStatus.PARTIALLY_FITTED",
        "ray.data.preprocessor:Preprocessor._fit",
        "ray.data.preprocessor:Preprocessor._get_transform_config",
        "ray.data.preprocessor:Preprocessor._is_fittable",
        "ray.data.preprocessor:Preprocessor._transform_numpy",
    ],
)
def test_what_is_used_or_overridden_is_there(name: str) -> None:
    of_ray(name)


def test_settings_of_ray_data_are_there() -> None:
    context = ray.data.DataContext.get_current()
    names = {
        "custom_execution_callback_classes",
        "enable_progress_bars",
        "execution_no_progress_timeout_s",
        "max_consecutive_actor_init_deaths",
        "print_on_execution_start",
        "raise_original_map_exception",
        "target_max_block_size",
    }
    missing = {name for name in names if not hasattr(context, name)}
    assert not missing, changed(f"DataContext has no {sorted(missing)}")


def test_a_callback_is_called_with_the_execution_at_each_step() -> None:
    base = of_ray("ray.data._internal.execution.execution_callback:ExecutionCallback")
    asked = list(inspect.signature(base.on_execution_step).parameters)
    assert asked == ["self", "executor"], changed(f"on_execution_step takes {asked}")


def test_an_execution_is_a_thread_that_holds_its_operators() -> None:
    from job.cluster import ray_internals

    executor = of_ray(f"{ray_internals._EXECUTOR}:StreamingExecutor")
    assert issubclass(executor, threading.Thread), changed("executions are no threads")
    assert "self._topology" in inspect.getsource(executor), changed("it has no _topology")


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("gcs_service_pb2:CheckAliveReply", {"ray_version"}),
        ("gcs_service_pb2:GetAllNodeInfoRequest", {"state_filter"}),
        ("gcs_service_pb2:GetAllNodeInfoReply", {"node_info_list"}),
        ("gcs_pb2:GcsNodeInfo", {"node_id"}),
        ("autoscaler_pb2:ClusterConfig", {"node_group_configs"}),
        ("autoscaler_pb2:NodeGroupConfig", {"resources", "max_count"}),
    ],
)
def test_messages_have_the_fields_that_are_read(message: str, fields: set[str]) -> None:
    missing = fields - set(of_ray(f"ray.core.generated.{message}").DESCRIPTOR.fields_by_name)
    assert not missing, changed(f"message {message} has no {sorted(missing)}")


def test_a_head_answers_the_questions_that_it_is_asked() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:  # nothing is sent
        stub = of_ray("ray.core.generated.gcs_service_pb2_grpc:NodeInfoGcsServiceStub")(channel)
        for name in ("CheckAlive", "GetAllNodeInfo"):
            assert callable(getattr(stub, name, None)), changed(f"the head has no {name}")
    assert of_ray("ray.core.generated.gcs_pb2:GcsNodeInfo.ALIVE") == 0, changed("ALIVE")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ClusterStatus", {"pending_launches", "pending_nodes", "failed_launches"}),
        ("LaunchRequest", {"count", "details", "ray_node_type_name"}),
    ],
)
def test_an_autoscaler_s_status_has_the_fields_that_are_read(name: str, fields: set[str]) -> None:
    has = {field.name for field in dataclasses.fields(of_ray(f"ray.autoscaler.v2.schema:{name}"))}
    assert fields <= has, changed(f"{name} has no {sorted(fields - has)}")


def test_a_job_that_is_stopped_has_the_seconds_that_are_counted_on() -> None:
    supervisor = of_ray("ray.dashboard.modules.job.job_supervisor:JobSupervisor")
    wait = supervisor.DEFAULT_RAY_JOB_STOP_WAIT_TIME_S
    assert wait == submission._RAYS_WAIT, changed(f"ray job stop waits {wait} s")
    source = inspect.getsource(inspect.getmodule(supervisor) or supervisor)
    assert submission.WAIT_VARIABLE in source, changed(f"no {submission.WAIT_VARIABLE}")


PRIVATE = re.compile(
    r"ray(\.\w+)*\._\w+|ray\.core\.|ray\.experimental\.|ray\.autoscaler\.|"
    r"ray\.data\.checkpoint|ray\.data\.datasource\.file_datasink"
)


def imported(path: Path) -> set[str]:
    """Modules that a file imports, and the names that it imports from each."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_no_other_module_imports_what_is_private_to_ray() -> None:
    offenders = {
        str(path.relative_to(ROOT)): sorted(private)
        for path in (ROOT / "job").rglob("*.py")
        if (private := {name for name in imported(path) if PRIVATE.match(name)})
    }
    assert set(offenders) == {MODULE}


def test_every_name_that_is_offered_is_there_and_is_used() -> None:
    from job.cluster import ray_internals

    used = set()
    for path in (ROOT / "job").rglob("*.py"):
        prefix = "job.cluster.ray_internals."
        used |= {name.removeprefix(prefix) for name in imported(path) if name.startswith(prefix)}
    assert used <= set(ray_internals.__all__)
    assert set(ray_internals.__all__) - used <= {"Head"}  # what ask_head returns
    for name in ray_internals.__all__:
        assert getattr(ray_internals, name) is not None


def test_what_only_asks_for_an_address_does_not_load_ray_data() -> None:
    program = "import sys, job.cluster.address; print('ray.data' in sys.modules)"
    assert printed(program) == "False"


def printed(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
