"""Refusals: errors of storages are told apart by whose fault they are, and said in plain words."""

import errno
import pickle
import socket

import aiohttp
import pytest
from botocore import exceptions as botocore_errors
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from job.storage.refusals import ENVIRONMENT, explain, keep_answer, kind_of


def answered(code: str, status: int, operation: str = "GetObject") -> OSError:
    """What s3fs makes of an answer of S3."""
    response = {
        "Error": {"Code": code, "Message": "said so"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return translate_boto_error(ClientError(response, operation))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answered("ExpiredToken", 400), "credentials", "have expired"),
        (answered("TokenRefreshRequired", 400), "credentials", "have expired"),
        (answered("InvalidToken", 400), "credentials", "does not accept the credentials"),
        (answered("InvalidAccessKeyId", 403), "credentials", "does not accept the credentials"),
        (answered("SignatureDoesNotMatch", 403), "credentials", "does not accept"),
        (answered("AuthorizationHeaderMalformed", 400), "credentials", "AWS_DEFAULT_REGION"),
        (answered("AccessDenied", 403, "AssumeRole"), "credentials", "Log in again"),
        (answered("ForbiddenException", 403, "GetRoleCredentials"), "credentials", "Log in again"),
        (answered("RequestTimeTooSkewed", 403), "clock", "NTP"),
        (answered("NoSuchBucket", 404), "bucket", "the bucket is not there"),
        (answered("PermanentRedirect", 301), "bucket", "another region"),
        (answered("403", 403), "proxy", "HTTP 403"),
        (answered("404", 404), "proxy", "HTTP 404"),
        (answered("407", 407), "proxy", "NO_PROXY"),
        (answered("", 502), "proxy", "HTTP 502"),
        (answered("403", 403, "HeadObject"), "forbidden", "Check the credentials"),
        (answered("404", 404, "HeadObject"), "missing", "not found"),
        (answered("AccessDenied", 403), "forbidden", "permission denied"),
        (answered("NoSuchKey", 404), "missing", "not found"),
        (answered("InvalidObjectState", 403), "archived", "restore it first"),
        (answered("SomethingNew", 400), "unknown", "SomethingNew"),
        (botocore_errors.NoCredentialsError(), "credentials", "AWS_ACCESS_KEY_ID"),
        (
            botocore_errors.CredentialRetrievalError(provider="process", error_msg="exit 1"),
            "credentials",
            "Log in again",
        ),
        (botocore_errors.UnauthorizedSSOTokenError(), "credentials", "Log in again"),
        (
            RuntimeError("Credentials were refreshed, but the refreshed credentials are expired."),
            "credentials",
            "Log in again",
        ),
        (
            botocore_errors.EndpointConnectionError(
                endpoint_url="https://s3", error=socket.gaierror(-2, "Name or service not known")
            ),
            "network",
            "endpoint does not answer",
        ),
        (socket.gaierror(-2, "Name or service not known"), "network", "Check DNS"),
        (botocore_errors.ProxyConnectionError(proxy_url="http://p"), "proxy", "HTTPS_PROXY"),
        (aiohttp.ServerDisconnectedError(), "network", "connection to the storage fails"),
        (OSError(errno.EMFILE, "Too many open files"), "node", "ulimit"),
        (OSError(errno.ENOSPC, "No space left"), "node", "Make room"),
        (OSError(errno.EIO, "Input/output error"), "node", "kernel's log"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "node", "out of memory"),
        (MemoryError(), "node", "out of memory"),
        (OSError(errno.ESTALE, "Stale file handle"), "mount", "Mount it again"),
        (OSError(errno.ENOTCONN, "not connected"), "mount", "Mount it again"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), "missing", "not found"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "forbidden", "permission"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_error_is_told_by_whose_fault_it_is(error: Exception, kind: str, words: str) -> None:
    assert kind_of(error) == kind
    assert words in explain(error)
    assert "\n" not in explain(error)


def test_errors_of_other_clouds_are_told_by_their_names_and_statuses() -> None:
    class RefreshError(Exception):
        """Google's."""

    class HttpError(Exception):
        """gcsfs's."""

        code = 401

    class ResourceError(Exception):
        """Azure's."""

        status_code = 407

    assert kind_of(RefreshError("expired")) == "credentials"
    assert kind_of(HttpError("Unauthorized")) == "credentials"
    assert kind_of(ResourceError("proxy")) == "proxy"
    assert kind_of(ValueError("what?")) == "unknown"


def test_what_s3_answered_is_still_known_in_another_process() -> None:
    error = answered("ExpiredToken", 400)
    assert kind_of(pickle.loads(pickle.dumps(error))) == "forbidden", "what is behind it is lost"
    keep_answer(error)
    travelled = pickle.loads(pickle.dumps(error))
    assert kind_of(travelled) == "credentials"
    assert "have expired (ExpiredToken: said so)" in explain(travelled)


def test_an_error_is_told_by_what_is_behind_it() -> None:
    error = RuntimeError("could not fetch")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert kind_of(error) == "node"
    assert "missing" not in ENVIRONMENT
    assert "unknown" not in ENVIRONMENT
