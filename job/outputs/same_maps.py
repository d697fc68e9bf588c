"""Same maps: whether a run would make the maps that earlier runs on its OUTPUT have made."""

from typing import TYPE_CHECKING, Any

from job.config import JobConfig
from job.errors import OutputConflictError
from job.models.checkpoint import Origin
from job.outputs import commits, receipts
from job.outputs.receipts import Receipt
from job.storage.location import Location

if TYPE_CHECKING:
    from job.models.info import ModelInfo

# Settings as they were before receipts told of them.
_UNSAID = {"decode": "exact", "map_png": "palette"}
# The precision of maps that --reference has made: no other run makes the same.
_REFERENCE = "float32 (reference)"


def settings_of(config: JobConfig, model: "ModelInfo | None" = None) -> dict[str, Any]:
    """Everything beside the model's files that decides what the maps are.

    Args:
        config: the options.
        model: what is known of the model; None where only its files are, which decide the rest.
    """
    precision = _REFERENCE if config.reference else config.precision
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
    earlier = _earlier(output)
    if earlier is None:
        return settings
    before = {**_UNSAID, **earlier.settings}
    settings = {
        name: before.get(name) if value == "auto" and before.get(name) != _REFERENCE else value
        for name, value in settings.items()
    }
    now = {**_UNSAID, **settings}
    differing = [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if earlier.model.digest != origin.digest:
        differing.insert(0, _model_difference(earlier.model, origin))
    if differing:
        raise OutputConflictError(
            f"OUTPUT {output.uri} holds maps made differently: {'; '.join(differing)}. Use the"
            " same, or another OUTPUT"
        )
    return settings


def _earlier(output: Location) -> Receipt | None:
    """The receipt of the run that made the first maps; None where there are none to mix with."""
    runs, files = commits.runs(output), receipts.files(output)
    if not runs or not files:
        return None
    made = [file for file in files if file.name == f"{runs[0]}.json"]
    return receipts.read((made or files)[0])


def _model_difference(before: Origin, now: Origin) -> str:
    if before.name != now.name:
        return f"the model was {before.name} and is now {now.name}"
    if before.revision != now.revision:
        return f"the model's revision was {before.revision} and is now {now.revision}"
    return f"the files of the model {now.name} have changed since"
