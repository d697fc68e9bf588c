"""Receipts: what each run on an OUTPUT was, written when it starts and again when it ends."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, cast

import ray

from job.checkpoint import Origin
from job.config import JobConfig
from job.errors import OutputConflictError, StoppedError, StorageError
from job.model import ModelCard
from job.presentable import presentable
from job.progress import Snapshot
from job.resources import Allotment
from job.storage import STORAGE_ERRORS, Location, take_retries

if TYPE_CHECKING:
    from job.forward import Precision

Status = Literal["running", "finished", "failed", "stopped"]
# The stages that predictors run; all others are tasks on the cluster's CPUs.
PREDICTING = ("normalise", "forward", "upsample")
_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True)
class Receipt:
    """One run over one manifest.

    Attributes:
        run_id: sorts by start time.
        status: ``running`` until it ends; a run that was killed stays so.
        input: what was listed.
        model: name, revision and digest of the model.
        settings: everything else that decides what the maps are.
        images: rows of the manifest.
        done_before: images that had a map or an error when the run started.
        maps: images that this run gave a map.
        errors: images that this run could not, by kind.
        seconds: from start to end.
        first_map: seconds from the start of the work to the first maps in storage.
        steady: images per second from then on.
        retries: requests to storage that were made again.
        stages: per stage seconds, images, images per second of one worker, and the share of its
            time that it was busy: of the predictors' for what they do, else of all CPUs'.
        allotment: what each stage asked Ray for.
        versions: of the packages that decide results.
        message: how it ended, when not well, or what workers had to say.
    """

    run_id: str
    status: Status
    input: str
    model: dict[str, Any]
    settings: dict[str, Any]
    started: str = ""
    ended: str = ""
    images: int = 0
    done_before: int = 0
    maps: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    first_map: float = 0.0
    steady: float = 0.0
    retries: int = 0
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    allotment: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    message: str = ""

    @property
    def precision(self) -> "Precision":
        """What matrix products are computed in."""
        return cast("Precision", str(self.settings["precision"]).split()[0])

    @property
    def failed(self) -> int:
        """Images that this run could not give a map."""
        return sum(self.errors.values())

    @property
    def images_per_second(self) -> float:
        return (self.maps + self.failed) / self.seconds if self.seconds else 0.0

    @property
    def remaining(self) -> int:
        """Images that were left to do when the run started."""
        return self.images - self.done_before

    def with_precision(self, precision: "Precision") -> "Receipt":
        """The same receipt, with what ``auto`` has come to mean."""
        return replace(self, settings={**self.settings, "precision": precision})

    def ending(self, status: Status, **changes: Any) -> "Receipt":
        """The same receipt as it stands at the end."""
        return replace(self, status=status, ended=_now(), **changes)

    @contextlib.contextmanager
    def kept_in(self, output: Location, measures: "Measures") -> Iterator["_Keeping"]:
        """Keep the receipt in storage from now on: as running, and however it ends."""
        keeping = _Keeping(self, output, measures)
        self.write(output)
        try:
            yield keeping
            keeping.end("finished")
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | StoppedError)
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            # Storage that has ended the run may not take the receipt either.
            with contextlib.suppress(*STORAGE_ERRORS):
                keeping.end("stopped" if stopped else "failed", message)
            raise

    def write(self, output: Location) -> None:
        """Write to ``OUTPUT/runs/<run id>.json``, over what was there."""
        record = {
            **asdict(self),
            "input": presentable(self.input),
            "model": {**self.model, "name": presentable(self.model["name"])},
            "message": presentable(self.message),
            "images_per_second": round(self.images_per_second, 3),
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (output / "runs" / f"{self.run_id}.json").write_bytes(text.encode())


@dataclass(frozen=True)
class Measures:
    """Where a receipt finds what its run has done.

    Attributes:
        tally: handle of the run's :class:`job.progress.Tally`.
        allotment: what each stage has asked Ray for.
    """

    tally: Any
    allotment: Allotment

    def take(self) -> dict[str, Any]:
        """The fields of a receipt, as far as the run has come."""
        try:
            self.tally.add.remote({}, {}, take_retries())  # this process's own
            total = ray.get(self.tally.snapshot.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            return {}  # Ray itself is gone; what is committed tells the rest
        return {
            "maps": total.maps,
            "errors": dict(total.errors),
            "first_map": round(total.first_map, 3),
            "steady": round(total.steady, 3),
            "retries": total.retries,
            "stages": _stages(total, self.allotment),
            "allotment": asdict(self.allotment),
            "message": "; ".join(total.notes),
        }


class _Keeping:
    """A receipt that is written when its run ends.

    Attributes:
        receipt: as it was written last.
    """

    def __init__(self, receipt: Receipt, output: Location, measures: Measures) -> None:
        self.receipt = receipt
        self._output = output
        self._measures = measures
        self._started = time.monotonic()
        self._writing = threading.Lock()
        self._is_over = False

    def stopping(self) -> None:
        """Begin nothing new. Written down at once: whoever stops a run may soon kill it."""
        self._measures.tally.stop.remote()
        self._measures.tally.note.remote("told to stop: finishing what is in flight")
        with self._writing, contextlib.suppress(*STORAGE_ERRORS):
            if not self._is_over:
                self._write("stopped", "told to stop")

    def end(self, status: Status, message: str = "") -> None:
        """Write down what the run has done, and how it ended."""
        self._is_over = True
        with self._writing:
            self._write(status, message)

    def _write(self, status: Status, message: str) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        changes = self._measures.take()
        if message:
            changes["message"] = message
        self.receipt = self.receipt.ending(status, seconds=seconds, **changes)
        self.receipt.write(self._output)


def _stages(total: Snapshot, allotment: Allotment) -> dict[str, dict[str, float]]:
    stages = {}
    for stage, seconds in total.seconds.items():
        in_predictors = stage in PREDICTING or not allotment.loads_apart
        slots = (total.arrived or allotment.workers) if in_predictors else allotment.cpus
        stages[stage] = {
            "seconds": round(seconds, 3),
            "images": total.images[stage],
            "images_per_second": round(total.images[stage] / max(seconds, 1e-9), 2),
            "busy": round(seconds / max(total.spans[stage] * slots, 1e-9), 3),
        }
    return stages


def start(
    run_id: str,
    source: str,
    model: ModelCard,
    settings: dict[str, Any],
    *,
    images: int,
    done_before: int,
) -> Receipt:
    """The receipt of a run that begins now."""
    return Receipt(
        run_id=run_id,
        status="running",
        input=source,
        model=asdict(model.origin),
        settings=settings,
        images=images,
        done_before=done_before,
        started=_now(),
        versions={name: metadata.version(name) for name in _PACKAGES},
    )


def new_run_id() -> str:
    """A name for a run that sorts by time: ``20261122T101500-3f9a``."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def read_all(output: Location) -> list[dict[str, Any]]:
    """Every receipt under an OUTPUT, oldest first."""
    return [_read_one(file) for file in _files(output)]


def _files(output: Location) -> list[Location]:
    place = output / "runs"
    return [place / name for name in place.names() if name.endswith(".json")]


def _read_one(file: Location) -> dict[str, Any]:
    try:
        receipt = json.loads(file.read_bytes())
        if isinstance(receipt["settings"], dict) and isinstance(receipt["model"]["digest"], str):
            return cast("dict[str, Any]", receipt)
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise StorageError(f"{file.uri} is no receipt, or a damaged one. Remove it")


def settings_of(config: JobConfig, model: ModelCard) -> dict[str, Any]:
    """Everything beside the model's files that decides what the maps are."""
    precision = "float32 (reference)" if config.reference else config.precision
    return {
        "precision": precision,
        "preprocessing": model.preprocessing,
        "decode": config.decode,
    }


def check_same_maps(output: Location, origin: Origin, settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse to mix maps that were made in different ways in one OUTPUT.

    Returns:
        The settings, with what was ``auto`` as earlier runs have settled it.

    Raises:
        OutputConflictError: naming what differs from the runs before, and the way out.
    """
    commits = (output / "checkpoint").names()
    if not commits:
        return settings  # earlier runs have left nothing to mix with
    run_id = min(commits).rpartition("-")[0]
    made = [file for file in _files(output) if file.path.endswith(f"/{run_id}.json")]
    for earlier in map(_read_one, made or _files(output)[:1]):
        before = {"decode": "exact", **earlier["settings"]}  # older receipts do not say it
        settings = {
            name: before.get(name) if value == "auto" else value for name, value in settings.items()
        }
        differing = [
            f"{name} was {before.get(name)!r} and is now {settings.get(name)!r}"
            for name in sorted({*before, *settings})
            if before.get(name) != settings.get(name)
        ]
        if earlier["model"]["digest"] != origin.digest:
            differing.insert(0, _model_difference(earlier["model"], origin))
        if differing:
            raise OutputConflictError(
                f"OUTPUT {output.uri} holds maps made differently: {'; '.join(differing)}. Use the"
                " same, or another OUTPUT"
            )
    return settings


def _model_difference(before: dict[str, Any], now: Origin) -> str:
    if before["name"] != now.name:
        return f"the model was {before['name']} and is now {now.name}"
    if before["revision"] != now.revision:
        return f"the model's revision was {before['revision']} and is now {now.revision}"
    return f"the files of the model {now.name} have changed since"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
