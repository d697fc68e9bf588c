"""JobConfig: typed, closed and frozen; what is wrong is named, what is secret is not."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from job.config import JobConfig, load
from job.errors import ConfigError

PLACES = {"input": "in", "output": "out"}


def test_defaults_are_those_of_the_documentation() -> None:
    config = load(PLACES)
    assert config.model == "nvidia/segformer-b0-finetuned-ade-512-512"
    assert (config.max_error_rate, config.pixel_limit) == (0.01, 100_000_000)
    assert config.storage_options == {}
    assert config.progress == "auto"


def test_words_of_a_command_line_become_values() -> None:
    config = load({**PLACES, "batch_size": "4", "max_error_rate": "0.5", "gpus_per_worker": "0"})
    assert (config.batch_size, config.max_error_rate, config.gpus_per_worker) == (4, 0.5, 0.0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"batch_sise": 4}, "--batch-sise: no such option; there are input, output, model"),
        ({"batch_size": "many"}, "--batch-size 'many': .*integer"),
        ({"batch_size": 0}, "--batch-size 0: .*greater than or equal to 1"),
        ({"batch_size": 1.5}, "--batch-size 1.5: .*integer"),
        ({"workers": -1}, "--workers -1"),
        ({"max_error_rate": 1.01}, "--max-error-rate 1.01: .*less than or equal to 1"),
        ({"max_error_rate": float("nan")}, "--max-error-rate nan"),
        ({"gpus_per_worker": -0.5}, "--gpus-per-worker -0.5"),
        ({"pixel_limit": None}, "--pixel-limit None"),
        ({"progress": "loud"}, "--progress 'loud': .*'bar', 'lines' or 'none'"),
        ({"model": 5}, "--model 5: .*string"),
        ({"input": 5}, "INPUT 5: .*string"),
        ({"output": None}, "OUTPUT None: .*string"),
        ({"storage_options": "{'a': 1}"}, "--storage-options: not valid JSON .*endpoint_url"),
        ({"storage_options": "[1]"}, "--storage-options: .*dictionary"),
        ({"storage_options": "5"}, "--storage-options: .*dictionary"),
        ({"storage_options": ""}, "--storage-options: not valid JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_expected(
    values: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load({**PLACES, **values})
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_place_that_is_missing_is_named(missing: str) -> None:
    values = {name: value for name, value in PLACES.items() if name != missing}
    with pytest.raises(ConfigError, match=f"{missing.upper()}.*[Ff]ield required") as caught:
        load(values)
    assert "{" not in str(caught.value)


def test_a_place_that_is_missing_does_not_bring_secrets_to_light() -> None:
    with pytest.raises(ConfigError, match="OUTPUT") as caught:
        load({"input": "in", "storage_options": {"secret": "hunter2"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("place", ["input", "output"])
def test_an_empty_place_is_refused_rather_than_taken_for_the_current_folder(place: str) -> None:
    with pytest.raises(ConfigError, match=place.upper()):
        load({**PLACES, place: ""})


def test_storage_options_are_json_or_a_mapping() -> None:
    options = {"endpoint_url": "http://127.0.0.1:9000", "client_kwargs": {"verify": False}}
    text = '{"endpoint_url": "http://127.0.0.1:9000", "client_kwargs": {"verify": false}}'
    assert load({**PLACES, "storage_options": text}).storage_options == options
    assert load({**PLACES, "storage_options": options}).storage_options == options


@pytest.mark.parametrize(
    "options",
    [
        '{"key": "AKIA", "secret": "hunter2"',
        '["hunter2"]',
        '"hunter2"',
        {5: "hunter2"},
        ["hunter2"],
        "hunter2",
    ],
    ids=["cut short", "a list", "a string", "a key of a number", "a real list", "a word"],
)
def test_secrets_in_storage_options_are_never_shown(options: object) -> None:
    with pytest.raises(ConfigError, match="--storage-options") as caught:
        load({**PLACES, "storage_options": options})
    assert "hunter2" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{}, {"output": "out", "batch_size": "many"}])
def test_secrets_do_not_show_in_an_error_of_pydantic(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        JobConfig(input="in", storage_options={"secret": "hunter2"}, **wrong)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"decode": "reduced"}, "--decode reduced: --reference wants every bit"),
        ({"precision": "bfloat16"}, "--precision bfloat16: --reference computes in float32"),
        ({"precision": "float16"}, "--precision float16: --reference computes in float32"),
        ({"compile": "on"}, "--compile on: --reference runs the stock model as it is"),
    ],
)
@pytest.mark.parametrize("make", [load, lambda values: JobConfig(**values)], ids=["load", "class"])
def test_options_that_exclude_each_other_are_refused_in_one_sentence(
    make: Callable[[dict[str, Any]], JobConfig], option: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make({**PLACES, **option, "reference": True})
    assert str(caught.value) == f"{says}. Leave one of them out"
    assert make({**PLACES, **option}).reference is False


def test_the_reference_goes_with_what_is_left_to_the_job() -> None:
    for given in (
        {"reference": True, "precision": "auto", "compile": "auto"},
        {"reference": True, "precision": "float32", "compile": "off"},
    ):
        config = load({**PLACES, **given})
        assert {name: getattr(config, name) for name in given} == given


def test_secrets_do_not_show_in_the_config_as_text() -> None:
    config = load({**PLACES, "storage_options": {"key": "AKIA", "secret": "hunter2"}})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)


def test_a_config_is_frozen_and_travels() -> None:
    config = load(PLACES)
    with pytest.raises(ValidationError, match="frozen"):
        config.batch_size = 9  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_option_has_a_help_text() -> None:
    assert all(field.description for field in JobConfig.model_fields.values())
