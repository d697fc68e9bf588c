"""cluster.yaml, read as Ray reads it: with its defaults, and by its autoscaler."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from deploy.finding import Finding, ok, wrong

Config = dict[str, Any]


def read(path: Path) -> tuple[Config | None, list[Finding]]:
    """The configuration that `ray up` acts on, and whether it can; None when it cannot."""
    name = str(path)
    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return None, [wrong(name, "there is no such file: run this where cluster.yaml is")]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return None, [wrong(name, f"it cannot be read: {error}")]
    provider = config.get("provider") if isinstance(config, dict) else None
    kind = provider.get("type") if isinstance(provider, dict) else None
    if kind != "aws":
        return None, [wrong(name, f"provider.type is {kind}, and these checks are for aws")]
    try:
        with _quiet():
            prepared: Config = prepare_config(config)
            validate_config(prepared)
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the top"
        return None, [wrong(name, f"Ray does not take it: {error.message}, at {where}")]
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        return None, [wrong(name, f"Ray does not take it: {type(error).__name__} {error}")]
    region = prepared["provider"].get("region")
    if not isinstance(region, str) or not region:
        return None, [wrong(name, "provider.region is missing: name the region of your bucket")]
    return prepared, [ok(name, "Ray takes it"), *_images(prepared)]


def _images(config: Config) -> list[Finding]:
    """Autoscaler v2 wants docker.image, whatever else is named, and says so after the launch."""
    if not config.get("docker"):
        return []
    with _quiet():
        autoscaling = AutoscalingConfig(config, skip_content_hash=True)
    found = []
    for node_type in config["available_node_types"]:
        subject = f"image of {node_type}"
        try:
            with _quiet():
                found.append(ok(subject, autoscaling.get_docker_config(node_type)["image"]))
        except KeyError:
            text = (
                "docker.image is missing, and the autoscaler starts no worker without it: name one"
            )
            found.append(wrong(subject, text))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray remarks on mounted files, and logs what it fills in."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
