"""Refusals: what an error of storage means, in plain words: about one object, or the way to it.

Whoever cannot get an object does not know by that alone whose fault it is. An answer in S3's own
terms may be about the object; most errors are about credentials, clocks, nodes, mounts and networks
and say nothing about the object that happened to be asked for.
"""

import asyncio
import errno
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from job.errors import causes
from job.redact import redact

Kind = Literal[
    "missing",  # the storage says that there is no such object
    "forbidden",  # the storage says that this object is not for whoever asks
    "archived",  # it is there, and has to be restored before it can be read
    "credentials",
    "clock",
    "node",  # out of file handles, memory, disk; or the disk itself fails
    "mount",  # the folder is not there, or its server is not
    "network",  # no connection, no name, no answer
    "proxy",  # an answer that is not the storage's own
    "bucket",  # not there, or elsewhere
    "unknown",
]
# What is never the fault of an object.
ENVIRONMENT: frozenset[Kind] = frozenset(
    ("credentials", "clock", "node", "mount", "network", "proxy", "bucket")
)

# What filesystems raise when storage refuses, fails or does not answer. Those of the S3 client
# are no OSErrors.
REFUSALS = (
    OSError,
    BotoCoreError,
    ClientError,
    ResponseParserError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
)
# And what they raise for names that they cannot take.
STORAGE_ERRORS = (*REFUSALS, ValueError)

_CODES: dict[str, Kind] = {
    "AccessDenied": "forbidden",
    "InvalidObjectState": "archived",
    "NoSuchKey": "missing",
    "NoSuchVersion": "missing",
    **dict.fromkeys(
        (
            "AccountProblem",
            "AllAccessDisabled",
            "AuthFailure",
            "AuthorizationHeaderMalformed",
            "AuthorizationQueryParametersError",
            "CredentialsNotSupported",
            "ExpiredToken",
            "ExpiredTokenException",
            "ForbiddenException",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidIdentityToken",
            "InvalidPayer",
            "InvalidSecurity",
            "InvalidToken",
            "MissingAuthenticationToken",
            "MissingSecurityElement",
            "MissingSecurityHeader",
            "NotSignedUp",
            "OptInRequired",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "UnauthorizedAccess",
            "UnauthorizedException",
            "UnrecognizedClientException",
        ),
        "credentials",
    ),
    **dict.fromkeys(("RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"), "clock"),
    **dict.fromkeys(
        (
            "IllegalLocationConstraintException",
            "InvalidBucketName",
            "InvalidBucketState",
            "NoSuchBucket",
            "PermanentRedirect",
            "Redirect",
            "TemporaryRedirect",
        ),
        "bucket",
    ),
}
# Requests for credentials: what is denied there is no object.
_OF_CREDENTIALS = re.compile(r"AssumeRole|GetRoleCredentials|GetSessionToken|CreateToken|GetCred")
# By name, for some come from packages that need not be installed: of AWS, Google, Azure, SSH.
_TYPES: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "AuthenticationException",
            "AuthenticationRequiredError",
            "BadHostKeyException",
            "ClientAuthenticationError",
            "ConfigNotFound",
            "ConfigParseError",
            "CredentialRetrievalError",
            "CredentialUnavailableError",
            "DefaultCredentialsError",
            "InvalidConfigError",
            "LoginError",
            "MetadataRetrievalError",
            "NoAuthTokenError",
            "NoCredentialsError",
            "PartialCredentialsError",
            "PasswordRequiredException",
            "ProfileNotFound",
            "RefreshError",
            "RefreshWithMFAUnsupportedError",
            "SSOError",
            "TokenRetrievalError",
            "UnknownCredentialError",
            "UnknownTokenProviderError",
        ),
        "credentials",
    ),
    **dict.fromkeys(("ClientHttpProxyError", "ProxyConnectionError", "ProxyError"), "proxy"),
    **dict.fromkeys(
        (
            "ConnectTimeoutError",
            "EndpointConnectionError",
            "NoValidConnectionsError",
            "SSHException",
            "ServiceRequestError",
            "ServiceResponseError",
            "TransportError",
        ),
        "network",
    ),
}
_NETWORK = (
    botocore_errors.ConnectionError,
    botocore_errors.HTTPClientError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    ConnectionError,
    TimeoutError,
    asyncio.TimeoutError,
    socket.gaierror,
)
_NUMBERS: dict[int, Kind] = {
    **dict.fromkeys(
        (
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOMEM,
            errno.ENOSPC,
            errno.EDQUOT,
            errno.ENOBUFS,
            errno.EAGAIN,
            errno.EIO,
        ),
        "node",
    ),
    **{
        getattr(errno, name): "mount"
        for name in (
            "EHOSTDOWN",
            "EKEYEXPIRED",
            "EKEYREJECTED",
            "EKEYREVOKED",
            "ENODEV",
            "ENOLINK",
            "ENOTCONN",
            "ENXIO",
            "EREMOTEIO",
            "ESHUTDOWN",
            "ESTALE",
        )
        if hasattr(errno, name)
    },
    **dict.fromkeys((errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH), "network"),
}
# Ray Data adds to a worker's error how Ray may be told to try again; in an OSError that has a
# message already, as the name of a file.
ADVICE_OF_RAY = re.compile(r"""(\n|: ['"])Failed to .+? after \d+/\d+ attempts \(.*""", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What S3, or something in its place, has answered instead of doing what was asked.

    Attributes:
        operation: that was asked for, as AWS calls it.
        status: of HTTP.
        code: the name of the error; a number, or nothing, when the answer was not S3's XML.
        tier: where an archived object lies.
    """

    operation: str
    status: int
    code: str
    tier: str = ""

    @property
    def is_of_s3(self) -> bool:
        """Whether it is in S3's own terms; its answers to HEAD have no body."""
        return self.operation.startswith("Head") or bool(self.code and not self.code.isdigit())


class ForeignAnswerError(OSError):
    """A good answer that S3 has not given: the page of a proxy, of a portal."""


def answer_of(error: BaseException) -> Answer | None:
    """The answer behind an error, also of another process; None when there was none."""
    for behind in causes(error):
        kept = getattr(behind, "answer", None)
        if isinstance(kept, Answer):
            return kept
        if isinstance(behind, ClientError):
            return _described(behind)
    return None


def keep_answer(error: BaseException) -> None:
    """Make the answer part of the error: what is behind one stays behind when it is pickled."""
    answer = answer_of(error)
    if answer is not None and isinstance(error, OSError):
        error.answer = answer  # type: ignore[attr-defined]


def _described(error: ClientError) -> Answer:
    response: dict[str, Any] = dict(error.response)
    said = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    tier = said.get("AccessTier") or said.get("StorageClass") or ""
    operation = getattr(error, "operation_name", "") or ""
    return Answer(str(operation), int(status), str(said.get("Code", "")), str(tier))


def kind_of(error: BaseException) -> Kind:
    """What has gone wrong, as far as the error tells."""
    if isinstance(error, ForeignAnswerError):
        return "proxy"
    answer = answer_of(error)
    if answer is not None:
        return _kind_of_answer(answer)
    for behind in causes(error):
        kind = _kind_alone(behind)
        if kind != "unknown":
            return kind
    return "unknown"


def _kind_of_answer(answer: Answer) -> Kind:
    code = answer.code
    if _OF_CREDENTIALS.match(answer.operation):
        return "credentials"
    if code in _CODES:
        return _CODES[code]
    if answer.status == 407 or not answer.is_of_s3:
        return "proxy"
    by_status: dict[int, Kind] = {
        301: "bucket",
        307: "bucket",
        401: "credentials",
        403: "forbidden",
        404: "missing",
    }
    # Only where there was no body to say more.
    return by_status.get(answer.status, "unknown") if code.isdigit() else "unknown"


def _kind_alone(error: BaseException) -> Kind:
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _TYPES:
            return _TYPES[ancestor.__name__]
    if isinstance(error, RuntimeError) and "credentials" in str(error):
        return "credentials"  # botocore's, for what was expired when it was refreshed
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in _NUMBERS:
        return _NUMBERS[number]
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return "node"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, PermissionError):
        return "forbidden"
    if isinstance(error, _NETWORK):
        return "network"
    by_status: dict[int, Kind] = {
        401: "credentials",
        403: "forbidden",
        404: "missing",
        407: "proxy",
        410: "missing",
        502: "network",
        504: "network",
        511: "proxy",
    }
    return next(
        (by_status[number] for number in _statuses(error) if number in by_status), "unknown"
    )


def _statuses(error: BaseException) -> Iterator[int]:
    """The status of HTTP, as aiohttp, gcsfs and Azure's client name it."""
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
            yield int(value)


def explain(error: BaseException) -> str:
    """What a storage error means and what to do, in one sentence without a traceback."""
    plain = " ".join(ADVICE_OF_RAY.sub("", str(error)).split())
    text = redact(plain) or type(error).__name__
    answer = answer_of(error)
    if answer is not None and answer.code and answer.code not in text:
        text = f"{answer.code}: {text}"
    kind = kind_of(error)
    if kind == "credentials":
        return _about_credentials(error, answer, text)
    if kind == "network":
        return _about_network(error, text)
    if kind == "node":
        return _about_node(error, text)
    if kind == "proxy":
        said = "" if answer is None or not answer.status else f" HTTP {answer.status}"
        return (
            f"a proxy, or something else that is not the storage, has answered{said} ({text})."
            " Check HTTPS_PROXY, NO_PROXY and AWS_ENDPOINT_URL"
        )
    name = type(error).__name__
    sentences: dict[Kind, str] = {
        "archived": f"archived ({text}): restore it first",
        "bucket": f"the bucket is not there, or in another region ({text}). Check its name, its"
        " region and AWS_ENDPOINT_URL",
        "clock": f"the clock here and that of the storage differ ({text}). Set the clock, by NTP",
        "forbidden": f"permission denied ({text}). Check the credentials and the bucket's policy",
        "missing": f"not found ({text})",
        "mount": f"a file system is not mounted, or its server is away ({text}). Mount it again",
    }
    if kind in sentences:
        return sentences[kind]
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"a file is in the way ({text})"
    return f"{name}: {text}"


def _about_credentials(error: BaseException, answer: Answer | None, text: str) -> str:
    names = {ancestor.__name__ for behind in causes(error) for ancestor in type(behind).__mro__}
    if "NoCredentialsError" in names or "PartialCredentialsError" in names:
        return "no AWS credentials were found. Set AWS_PROFILE, AWS_ACCESS_KEY_ID, or use a role"
    code = answer.code if answer is not None else ""
    if code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"):
        return f"the credentials have expired ({text}). Renew them"
    if code == "AuthorizationHeaderMalformed":
        return (
            f"the request is signed for another region, or with a damaged key ({text}). Set"
            " AWS_DEFAULT_REGION to the bucket's, and check the credentials"
        )
    if answer is not None and not _OF_CREDENTIALS.match(answer.operation):
        return f"the storage does not accept the credentials ({text}). Check or renew them"
    return f"the credentials cannot be had ({text}). Log in again, or check the profile and role"


def _about_network(error: BaseException, text: str) -> str:
    behind = list(causes(error))
    names = {ancestor.__name__ for one in behind for ancestor in type(one).__mro__}
    if names & {"gaierror", "ClientConnectorDNSError"} or "Name or service not known" in text:
        return f"the name of the storage's host cannot be resolved ({text}). Check DNS"
    if names & {"SSLError", "ClientSSLError"}:
        return f"no secure connection to the storage ({text}). Check certificates and proxies"
    if names & {"EndpointConnectionError", "ConnectTimeoutError"}:
        return f"the endpoint does not answer ({text}). Check AWS_ENDPOINT_URL and the network"
    if names & {"TimeoutError", "ReadTimeoutError"}:
        return f"no answer in time ({text}). Check the network, or raise --storage-timeout"
    return f"the connection to the storage fails ({text}). Check the network"


def _about_node(error: BaseException, text: str) -> str:
    numbers = {getattr(behind, "errno", None) for behind in causes(error)}
    if numbers & {errno.EMFILE, errno.ENFILE}:
        return f"too many open files ({text}). Raise the limit, as with `ulimit -n`"
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full ({text}). Make room"
    if errno.EIO in numbers:
        return f"a disk or a mount fails ({text}). Look at the kernel's log"
    return f"the machine is out of memory or of processes ({text})"
