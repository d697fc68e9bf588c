"""Receipts: what each run on an OUTPUT was, written when it starts and again when it ends."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from fsspec.implementations.local import LocalFileSystem

from job.config import JobConfig
from job.errors import OutputConflictError, StoppedError, StorageError
from job.models.checkpoint import Origin
from job.outputs.commits import Commits
from job.redact import redact
from job.storage.location import STORAGE_ERRORS, Location
from job.versions import versions
from job.wording import counted

if TYPE_CHECKING:
    from job.models.forward import Precision
    from job.models.info import ModelInfo
    from job.outputs.measures import Measures

Status = Literal["running", "finished", "failed", "stopped"]
# The stages that predictors run; beside GPUs all others are tasks on the cluster's CPUs.
PREDICTING = ("normalise", "forward", "upsample")
# Settings as they were before receipts told of them.
_UNSAID = {"decode": "exact", "map_png": "palette"}


@dataclass(frozen=True)
class Receipt:
    """One run over one manifest.

    Attributes:
        run_id: sorts by start time.
        status: ``running`` until it ends; of a run that was killed, until the next one puts it
            right (:func:`settle`).
        input: what was listed; local paths are absolute.
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
        versions: of this program and the packages that decide results.
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

    def is_good(self, max_error_rate: float) -> bool:
        """Whether the run did what was asked: all images accounted for, few enough of them failed.

        Args:
            max_error_rate: share of its images that may fail.
        """
        accounted = self.maps + self.failed == self.remaining
        return accounted and (self.remaining == 0 or self.failed / self.remaining <= max_error_rate)

    @property
    def how_far(self) -> str:
        """What a run that was stopped leaves, and how to go on."""
        done = self.done_before + self.maps + self.failed
        are = "is" if self.images == 1 else "are"
        return (
            f"{done:,} of {counted(self.images, 'image')} {are} committed; the same command goes on"
        )

    def with_settings(self, settings: dict[str, Any]) -> "Receipt":
        """The same receipt, with all of the settings."""
        return replace(self, settings=settings)

    def with_precision(self, precision: "Precision") -> "Receipt":
        """The same receipt, with what ``auto`` has come to mean."""
        return self.with_settings({**self.settings, "precision": precision})

    def ending(self, status: Status, **changes: Any) -> "Receipt":
        """The same receipt as it stands at the end."""
        return replace(self, status=status, **{"ended": _now(), **changes})

    @contextlib.contextmanager
    def kept_in(
        self, output: Location, measures: "Measures", release: Callable[[], None] = lambda: None
    ) -> Iterator["ReceiptWriter"]:
        """Keep the receipt in storage from now on: as running, and however it ends.

        Args:
            output: the run's OUTPUT.
            measures: where to find what the run has done.
            release: gives the OUTPUT back when the run does not finish: what is still at work then
                can commit nothing more, and what is counted stays so.

        Raises:
            StoppedError: in place of one, with how much is committed.
        """
        writer = ReceiptWriter(self, output, measures)
        self.write(output)
        try:
            yield writer
            writer.end("finished")
        except BaseException as error:
            release()
            stopped = isinstance(error, KeyboardInterrupt | StoppedError)
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            # Storage that has ended the run may not take the receipt either.
            with contextlib.suppress(*STORAGE_ERRORS):
                writer.end("stopped" if stopped else "failed", message)
            if isinstance(error, StoppedError):
                raise StoppedError(writer.receipt.how_far) from None
            raise

    def write(self, output: Location) -> None:
        """Write to ``OUTPUT/runs/<run id>.json``, over what was there."""
        record = {
            **asdict(self),
            "input": redact(self.input),
            "model": {**self.model, "name": redact(self.model["name"])},
            "message": redact(self.message),
            "images_per_second": round(self.images_per_second, 3),
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (output / "runs" / f"{self.run_id}.json").write_bytes(text.encode())


class ReceiptWriter:
    """A receipt that is written when its run ends.

    Attributes:
        receipt: as it was written last.
    """

    def __init__(self, receipt: Receipt, output: Location, measures: "Measures") -> None:
        self.receipt = receipt
        self._output = output
        self._measures = measures
        self._started = time.monotonic()
        self._writing = threading.Lock()
        self._is_over = False

    def stopping(self) -> None:
        """Begin nothing new. Written down at once: whoever stops a run may soon kill it."""
        self._measures.tracker.stop.remote()
        self._measures.tracker.note.remote("told to stop: finishing what is in flight")
        with self._writing, contextlib.suppress(*STORAGE_ERRORS):
            if not self._is_over:
                # Not ended yet: should nothing follow, the next run counts what was committed.
                self._write("stopped", "told to stop", ended="")

    def end(self, status: Status, message: str = "") -> None:
        """Write down what the run has done, and how it ended."""
        self._is_over = True
        with self._writing:
            changes = {}
            if status != "finished":
                with contextlib.suppress(*STORAGE_ERRORS, StorageError):
                    changes = self._measures.committed(self._output, self.receipt.run_id)
            self._write(status, message, **changes)

    def _write(self, status: Status, message: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        changes = {**self._measures.take(), **more}
        if message:
            changes["message"] = message
        self.receipt = self.receipt.ending(status, seconds=seconds, **changes)
        self.receipt.write(self._output)


def start(
    run_id: str,
    source: str,
    origin: Origin,
    settings: dict[str, Any],
    *,
    images: int,
    done_before: int,
) -> Receipt:
    """The receipt of a run that begins now."""
    return Receipt(
        run_id=run_id,
        status="running",
        input=source if "://" in source else LocalFileSystem._strip_protocol(source),
        model=asdict(origin),
        settings=settings,
        images=images,
        done_before=done_before,
        started=_now(),
        versions=versions(),
    )


def new_run_id() -> str:
    """A name for a run that sorts by time: ``20261122T101500-3f9a``."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def read_all(output: Location) -> list[dict[str, Any]]:
    """Every receipt under an OUTPUT, oldest first."""
    return [_read_one(file) for file in _files(output)]


def settle(output: Location) -> None:
    """Bring up to date what runs have left that were killed; only the holder of the lock may.

    A receipt without an end says less than was committed afterwards, and that its run goes on.
    """
    files = _files(output)
    with ThreadPoolExecutor(32) as pool:
        records = list(pool.map(_readable, files))
    for file, record in zip(files, records, strict=True):
        if record is None or record.get("ended"):
            continue
        maps, errors = Commits(output).count(str(record["run_id"]))
        was_told = record.get("status") == "stopped"
        record |= {
            "status": "stopped" if was_told else "failed",
            "ended": _now(),
            "maps": maps,
            "errors": errors,
            "message": f"killed{' after it was told to stop' if was_told else ''}; the next run has"
            " counted what it had committed",
        }
        file.write_bytes(json.dumps(record, indent=2, ensure_ascii=False).encode())


def _readable(file: Location) -> dict[str, Any] | None:
    try:
        return _read_one(file)
    except StorageError:  # whoever needs it says so
        return None


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


def settings_of(config: JobConfig, model: "ModelInfo | None" = None) -> dict[str, Any]:
    """Everything beside the model's files that decides what the maps are.

    Args:
        config: the options.
        model: what is known of the model; None where only its files are, which decide the rest.
    """
    precision = "float32 (reference)" if config.reference else config.precision
    return {
        "precision": precision,
        "preprocessing": model.preprocessing if model else "auto",
        "decode": config.decode,
        "map_png": config.map_png,
    }


def check_same_maps(output: Location, origin: Origin, settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse to mix maps that were made in different ways in one OUTPUT.

    Returns:
        The settings, with what was ``auto`` as earlier runs have settled it.

    Raises:
        OutputConflictError: naming what differs from the runs before, and the way out.
    """
    runs = Commits(output).runs()
    if not runs:
        return settings  # earlier runs have left nothing to mix with
    made = [file for file in _files(output) if file.name == f"{runs[0]}.json"]
    for earlier in map(_read_one, made or _files(output)[:1]):
        before = {**_UNSAID, **earlier["settings"]}
        settings = {
            name: before.get(name) if value == "auto" else value for name, value in settings.items()
        }
        now = {**_UNSAID, **settings}
        differing = [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
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
