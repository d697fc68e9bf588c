"""The errors a person may see: each says what, which value, and what to do about it."""

from collections.abc import Iterator


class JobError(Exception):
    """A problem with a sentence for the person who started the job.

    ``exit_code`` is what the process ends with when the error reaches the command line.
    """

    exit_code = 1


class ConfigError(JobError):
    """An option, a configuration file or an argument of the API that makes no sense."""

    exit_code = 2


class StorageError(JobError):
    """Input that cannot be listed or read, or output that cannot be written."""

    exit_code = 3


class ModelError(JobError):
    """A model that cannot be found, read, or used for semantic segmentation."""

    exit_code = 4


class OutputConflictError(JobError):
    """An OUTPUT that belongs to something else: another model, or a run still going on."""

    exit_code = 5


class StoppedError(JobError):
    """The run was told to stop (SIGTERM, ``ray job stop``, Ctrl-C)."""

    exit_code = 130


class ChangedError(Exception):
    """An object is not the one that was listed; no storage error, for storage works."""


class ImageError(Exception):
    """Why one image has no map; becomes a row in ``errors/``, never the end of a run.

    Args:
        kind: a short name of the reason, stable enough to count by (``"truncated"``).
        message: a sentence a person understands.
        retryable: whether trying again later may help.
    """

    def __init__(self, kind: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        return _image_error, (self.kind, self.message, self.retryable)


def _image_error(kind: str, message: str, retryable: bool) -> ImageError:
    return ImageError(kind, message, retryable=retryable)


class CannotFoldError(ValueError):
    """A model has other parts than its family's fast path is for; the message says which."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what is behind it, from the outside in; Ray wraps errors of its workers."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
