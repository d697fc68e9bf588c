"""Opening: which kind of storage a URI is of. A new kind is plugged in here."""

from botocore.exceptions import BotoCoreError

from job.errors import ConfigError, StorageError
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.storage.location import Location, StorageOptions
from job.storage.refusals import explain, kind_of
from job.storage.uris import is_within_archive, scheme_of

# What is wrong with credentials before anybody was asked about them: options that do not fit.
_OPTIONS = {"ConfigNotFound", "ConfigParseError", "PartialCredentialsError", "ProfileNotFound"}


def locate(
    uri: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> Location:
    """Open the storage of a URI: a local path, ``s3://``, ``gs://``, anything fsspec opens.

    Args:
        uri: a path or URI.
        options: what the filesystem takes.
        retry_policy: with S3; other filesystems have options of their own for it.

    Raises:
        ConfigError: an unknown scheme, a scheme whose package is missing, or options that the
            filesystem does not take.
        StorageError: it cannot be opened, or its URIs would not tell its files from another's.
    """
    if not uri:
        raise ConfigError("an empty path; give a folder or a URI (is a shell variable unset?)")
    scheme = scheme_of(uri)
    try:
        return _kind(uri).open(uri, dict(options or {}), retry_policy)
    except ImportError as error:
        raise ConfigError(
            f"{uri}: reading {scheme}:// needs a package that is not installed ({error})"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{uri}: {error}. Use a local path, s3://, gs:// or another scheme that fsspec knows"
        ) from error
    except (TypeError, AttributeError, BotoCoreError) as error:
        if kind_of(error) in ("credentials", "network") and type(error).__name__ not in _OPTIONS:
            raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error
        raise ConfigError(
            f"--storage-options, or the credentials, do not fit {scheme}://: {explain(error)}"
        ) from error
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, OSError) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error


def _kind(uri: str) -> type[Location]:
    """Which kind of storage a URI is of. Only that one is loaded: that of S3 takes a while."""
    scheme = scheme_of(uri)
    if scheme in ("file", "local"):
        from job.storage.local import LocalLocation

        return LocalLocation
    if scheme in ("s3", "s3a"):
        from job.storage.s3 import S3Location

        return S3Location
    if scheme in ("http", "https"):
        from job.storage.web import WebLocation

        return WebLocation
    if is_within_archive(uri):
        from job.storage.archives import ArchiveLocation

        return ArchiveLocation
    from job.storage.fsspec_location import FsspecLocation

    return FsspecLocation
