"""Opening: what kind of input a URI names. A new kind of input is plugged in here."""

from job.inputs.base import Input
from job.inputs.listed_files import ListedFiles
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.storage.location import StorageOptions


def open_input(
    uri: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> Input:
    """Open INPUT: today the files under a folder, a prefix or a glob, or a single one.

    Args:
        uri: a path or URI.
        options: what its storage is opened with.
        retry_policy: of its storage.

    Raises:
        ConfigError: its storage is not known, or does not take the options.
        StorageError: it cannot be opened.
    """
    return ListedFiles(uri, options, retry_policy)
