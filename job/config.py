"""JobConfig: every option once; flags, keys of a YAML file and help texts come from it."""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from job.errors import ConfigError
from job.limits import DEFAULT_PIXEL_LIMIT, DEFAULT_RETRY_POLICY, RetryPolicy

DEFAULT_MODEL = "nvidia/segformer-b0-finetuned-ade-512-512"
# What makes no sense with the reference: an option, its values, and why.
_NOT_WITH_REFERENCE = (
    ("decode", ("reduced",), "wants every bit"),
    ("precision", ("bfloat16", "float16"), "computes in float32"),
    ("compile", ("on",), "runs the stock model as it is"),
)


def _parsed_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(
            f"not valid JSON ({error}); expected an object such as"
            ' \'{"endpoint_url": "http://127.0.0.1:9000"}\''
        ) from error


class JobConfig(BaseModel):
    """Everything a run depends on. Frozen, typed, and closed: an unknown key is an error.

    Raises:
        pydantic.ValidationError: an option is unknown, or its value is not one of those it takes.
        ConfigError: two options exclude each other.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        hide_input_in_errors=True,  # the storage options among it may hold keys
        defer_build=True,  # --help checks no values, and to prepare for them takes a while
    )

    input: str = Field(
        min_length=1, description="folder, prefix, glob or image: a local path, s3://, …"
    )
    output: str = Field(min_length=1, description="folder or prefix for the results, likewise")
    model: str = Field(
        DEFAULT_MODEL, description="name on the Hugging Face Hub, local directory, or URI of one"
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of a model on the Hub; a commit pins it"
    )
    storage_options: Annotated[dict[str, Any], BeforeValidator(_parsed_json)] = Field(
        default_factory=dict,
        repr=False,
        description="JSON object of options for fsspec, for INPUT, OUTPUT and a model's URI",
    )
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="precision of matrix products; auto measures whether half precision is faster"
        " here, and says so",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile the model on each worker; auto: on GPUs, when the run is long enough",
    )
    reference: bool = Field(
        False,
        description="run the stock model and post-processing, for maps equal in every bit; not with"
        " --decode reduced, --compile on or half precision",
    )
    decode: Literal["exact", "reduced"] = Field(
        "exact",
        description="reduced: JPEGs whose shorter side is at least four times the model's are"
        " decoded at a half, a quarter or an eighth of their size; faster, and the maps differ",
    )
    map_png: Literal["palette", "grayscale"] = Field(
        "palette",
        description="what a map's PNG is: class ids with the colours of a palette, or class ids"
        " alone, for readers that turn palettes into colours (OpenCV, Daft, WebDataset)",
    )
    address: str | None = Field(
        None,
        description="Ray to run on: host:port of a head, auto for the cluster of this machine,"
        " local for Ray of its own (default: RAY_ADDRESS, else the cluster of this machine, else"
        " Ray of its own)",
    )
    retry_errors: Literal["retryable", "all"] | None = Field(
        None,
        description="do failed images again: those that may work now (retryable), or all of them",
    )
    max_error_rate: float = Field(
        0.01, ge=0, le=1, description="share of images that may fail before the exit code says so"
    )
    pixel_limit: int = Field(
        DEFAULT_PIXEL_LIMIT, ge=1, description="most pixels of an image; larger ones are errors"
    )
    byte_limit: int = Field(
        2**29, ge=1, description="most bytes of an image file; larger ones are errors"
    )
    image_timeout: float = Field(
        300.0,
        gt=0,
        description="seconds that fetching or decoding an image, or predicting a batch, may take;"
        " what takes longer alone is an error",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="most predictors, each with the model loaded (default: one per CPU, or per GPU,"
        " that the cluster has or may add)",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="GPUs per predictor (default: 1 where the cluster has any or may add some)",
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPUs and threads per predictor (default: 1)"
    )
    batch_size: int | None = Field(
        None, ge=1, description="images per call of a predictor (default: up to 16, or 32 on GPUs)"
    )
    images_per_task: int | None = Field(
        None, ge=1, description="images that one task fetches and decodes (default: 8 to 64)"
    )
    images_per_file: int | None = Field(
        None,
        ge=1,
        description="images per output file, which is also what a crash can cost each writer;"
        " rounded up to whole tasks (default: 8 to 512, or to 4096 on GPUs)",
    )
    fetch_concurrency: int = Field(
        32, ge=1, le=64, description="images that one task fetches at the same time, up to 64"
    )
    storage_attempts: int = Field(
        DEFAULT_RETRY_POLICY.attempts,
        ge=1,
        description="times that a request to S3 is made before it has failed",
    )
    storage_timeout: float = Field(
        DEFAULT_RETRY_POLICY.timeout,
        gt=0,
        description="seconds to wait for an answer of S3, or for more of one",
    )
    worker_timeout: float = Field(
        1800.0,
        gt=0,
        description="seconds to wait for a first worker, where the cluster has to add nodes or"
        " other jobs hold all of it, before the run ends",
    )
    stop_grace: float = Field(
        20.0,
        ge=0,
        description="seconds to finish what is in flight when told to stop (SIGTERM, ray job stop)",
    )
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="live bar, a line every few seconds, or nothing (auto: bar on a tty)"
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("above 1 only whole GPUs can be asked for")
        return value

    @model_validator(mode="after")
    def _refuse_what_excludes_each_other(self) -> "JobConfig":
        # A ConfigError passes through pydantic as it is; of a ValueError it would make many lines.
        for name, values, reason in _NOT_WITH_REFERENCE:
            value = getattr(self, name)
            if self.reference and value in values:
                raise ConfigError(
                    f"{flag(name)} {value}: --reference {reason}. Leave one of them out"
                )
        return self

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long to try with S3."""
        return RetryPolicy(self.storage_attempts, self.storage_timeout)


def flag(name: str) -> str:
    """How the command line spells an option: ``INPUT``, ``--batch-size``."""
    return name.upper() if name in ("input", "output") else f"--{name.replace('_', '-')}"


def parse_storage_options(text: str) -> dict[str, Any]:
    """The options for fsspec in a JSON object.

    Raises:
        ConfigError: it is not one.
    """
    try:
        options = _parsed_json(text)
    except ValueError as error:
        raise ConfigError(f"--storage-options: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError("--storage-options: expected a JSON object of options for fsspec")
    return options


def load(values: dict[str, Any]) -> JobConfig:
    """Check values and make a config of them.

    Raises:
        ConfigError: naming the first option that is wrong, its value, and what is expected; or two
            that exclude each other.
    """
    try:
        return JobConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        # Storage options may hold keys: their value is never shown.
        value = "" if name.startswith("storage_options") else f" {first['input']!r}"
        if first["type"] == "missing":
            value = ""
        if first["type"] == "extra_forbidden":
            value, message = "", f"no such option; there are {', '.join(JobConfig.model_fields)}"
        raise ConfigError(f"{flag(name)}{value}: {message}") from error
