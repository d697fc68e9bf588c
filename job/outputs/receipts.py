"""Receipts: what each run on an OUTPUT was, and the format in which it has left the OUTPUT."""

import contextlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from job.errors import OutputConflictError, StorageError
from job.models.checkpoint import Origin
from job.outputs import names
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.redact import redact
from job.storage.at_once import at_once
from job.storage.location import Location
from job.storage.uris import absolute
from job.versions import PROGRAM, __version__, versions
from job.wording import counted

if TYPE_CHECKING:
    from job.models.forward import Precision

Status = Literal["running", "finished", "failed", "stopped"]
# The stages that predictors run; beside GPUs all others are tasks on the cluster's CPUs.
PREDICTING = ("normalise", "forward", "upsample")
# The number of OUTPUT's layout (docs/output.md). It grows when a version that knows only the one
# before would lose its way.
FORMAT = 3


@dataclass(frozen=True)
class Receipt:
    """One run over one manifest.

    Attributes:
        format: of the OUTPUT, as the run has left it.
        run_id: sorts by start time.
        status: ``running`` until it ends; of a run that was killed, until the next one puts it
            right (:func:`settle`).
        input: what was listed; local paths are absolute.
        model: where the model came from.
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

    format: int = field(default=FORMAT, kw_only=True)
    run_id: str
    status: Status
    input: str
    model: Origin
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

    def write(self, output: Location) -> None:
        """Write to ``OUTPUT/runs/<run id>.json``, over what was there."""
        shown = replace(
            self,
            input=redact(self.input),
            model=replace(self.model, name=redact(self.model.name)),
            message=redact(self.message),
        )
        record = {**asdict(shown), "images_per_second": round(self.images_per_second, 3)}
        _write(output / "runs" / f"{self.run_id}.json", record)


def begin(
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
        input=absolute(source),
        model=origin,
        settings=settings,
        images=images,
        done_before=done_before,
        started=_now(),
        versions=versions(),
    )


def new_run_id() -> str:
    """A name for a run that sorts by time: ``20261122T101500-3f9a0b7c12d4e856``."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(8)}"


def files(output: Location) -> list[Location]:
    """The files of all receipts under an OUTPUT, oldest first."""
    place = output / "runs"
    return [place / name for name in place.names() if name.endswith(".json")]


def read(file: Location) -> Receipt:
    """One receipt.

    Raises:
        OutputConflictError: a newer version wrote it, in a format that this one does not know.
        StorageError: it is damaged.
    """
    return _receipt(file, _load(file))


def read_all(output: Location) -> list[Receipt]:
    """Every receipt under an OUTPUT, oldest first; raises as :func:`read`."""
    return at_once(read, files(output))


def check_format(output: Location) -> None:
    """Refuse an OUTPUT in which this version would lose its way.

    The latest receipt tells: who finds a newer format than its own writes none. Whatever reads all
    receipts refuses each.

    Raises:
        OutputConflictError: a newer version wrote it, in a format that this one does not know.
    """
    with contextlib.suppress(StorageError):  # a damaged one: whoever needs it says so
        for file in files(output)[-1:]:
            _load(file)


def settle(output: Location, commits: Commits, claim: OutputClaim) -> None:
    """Bring up to date what runs have left that were killed; only who holds OUTPUT may.

    A receipt without an end says less than was committed afterwards, and that its run goes on. That
    of a later run is its own affair.

    Raises:
        OutputConflictError: another run took over.
    """
    claims = {names.claim_of(name) for name in (output / names.CLAIMS).names()}
    later = {names.run_of(name) for name in claims if names.order(name) > names.order(claim.name)}
    for file, (record, receipt) in _readable(output).items():
        if receipt.ended or receipt.run_id in later:
            continue
        claim.ask()
        maps, errors = commits.count(receipt.run_id)
        was_told = receipt.status == "stopped"
        settled = {
            "status": "stopped" if was_told else "failed",
            "ended": _now(),
            "maps": maps,
            "errors": errors,
            "message": f"killed{' after it was told to stop' if was_told else ''}; the next run has"
            " counted what it had committed",
        }
        # The rest stays as it was written, in its format, with what this version does not know.
        _write(file, {**record, **settled})


def _readable(output: Location) -> dict[Location, tuple[dict[str, Any], Receipt]]:
    """The receipts that are not damaged: as they are stored, and what they say."""

    def read_one(file: Location) -> tuple[dict[str, Any], Receipt] | None:
        try:
            record = _load(file)
            return record, _receipt(file, record)
        except StorageError:  # whoever needs it says so
            return None

    places = files(output)
    found = zip(places, at_once(read_one, places), strict=True)
    return {file: both for file, both in found if both is not None}


def _load(file: Location) -> dict[str, Any]:
    """A receipt as it is stored, once it is known that its format is."""
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(file) from error
    if not isinstance(record, dict):
        raise _damaged(file)
    number = record.get("format", 1)
    if type(number) is not int:
        raise _damaged(file)
    if number > FORMAT:
        told = record.get("versions")
        wrote = told.get(PROGRAM) if isinstance(told, dict) else None
        raise OutputConflictError(
            f"OUTPUT has format {number}: {file.uri} was written by {PROGRAM}"
            f" {wrote if wrote and wrote != __version__ else 'of a newer version'}, and this is"
            f" {__version__}, which knows formats up to {FORMAT}. Upgrade {PROGRAM}"
        )
    return record


def _receipt(file: Location, record: dict[str, Any]) -> Receipt:
    told = {name: value for name, value in record.items() if value is not None}
    try:
        return _validator().validate_python({"format": 1, **told})
    except ValidationError as error:
        raise _damaged(file) from error


@cache
def _validator() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)


def _damaged(file: Location) -> StorageError:
    return StorageError(f"{file.uri} is no receipt, or a damaged one. Remove it")


def _write(file: Location, record: dict[str, Any]) -> None:
    file.write_bytes(json.dumps(record, indent=2, ensure_ascii=False).encode())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
