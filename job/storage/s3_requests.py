"""S3 requests: s3fs, but each is made again, in one place and so many times, until answered."""

import asyncio
import io
import random
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore import exceptions as botocore_errors
from fsspec.asyn import sync_wrapper
from s3fs.core import S3_RETRYABLE_ERRORS, S3FileSystem, version_id_kw

from job.errors import ChangedError
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.storage import notices
from job.storage.refusals import (
    REFUSALS,
    ForeignAnswerError,
    answer_of,
    explain,
    keep_answer,
    kind_of,
)
from job.storage.retries import count_retry

# Answers of a storage that has a bad moment. 507 is not among them: a full disk stays full.
_BUSY = {408, 429, 500, 502, 503, 504, 509}
_BUSY_CODES = {
    "BadDigest",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "XAmzContentSHA256Mismatch",
}
# No answer, half of one, or one that makes no sense.
_BROKEN: tuple[type[BaseException], ...] = (
    *S3_RETRYABLE_ERRORS,
    botocore_errors.ConnectionError,
    botocore_errors.FlexibleChecksumError,
    botocore_errors.IncompleteReadError,
    aiohttp.ClientError,
    # The services that give credentials away have bad moments, too.
    botocore_errors.CredentialRetrievalError,
    botocore_errors.MetadataRetrievalError,
)
# A sender waits without end for a server that takes no more; below this many bytes a second it
# counts as such a one.
_SLOWEST_UPLOAD = 100_000
# What threads that fetch, list and write at the same time have between them; botocore's own 10
# would be the most that are ever at work.
_CONNECTIONS = 64
# Between two looks for other credentials than those that are refused.
_RENEWAL_SECONDS = 30.0


class S3(S3FileSystem):
    """The filesystem of ``s3://``.

    s3fs, botocore and aiohttp all make requests again: their attempts multiply, nobody can count
    them, and yet a body that breaks off is read again only here and there. So all are told to try
    once, every request goes through :meth:`_call_s3`, and the body of an answer belongs to the
    request: objects, or the parts that are asked for, are read whole.

    Args:
        retry_policy: how often to try, and how long to wait. ``config_kwargs`` with ``retries``,
            ``connect_timeout`` or ``read_timeout`` in them come first.
    """

    retries = 1

    def __init__(
        self,
        *arguments: Any,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        config_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        config = {
            "connect_timeout": retry_policy.to_connect,
            "read_timeout": retry_policy.timeout,
            "max_pool_connections": _CONNECTIONS,
            "http_session_cls": _SendingOnce,
            **(config_kwargs or {}),
        }
        wanted = config.get("retries") or {}
        self._attempts = int(
            wanted.get(
                "total_max_attempts", wanted.get("max_attempts", retry_policy.attempts - 1) + 1
            )
        )
        self._timeout = retry_policy.timeout
        self._renewed = -_RENEWAL_SECONDS
        self._renewing: asyncio.Lock | None = None
        config["retries"] = {"total_max_attempts": 1, "mode": "legacy"}
        super().__init__(*arguments, config_kwargs=config, **options)

    async def _call_s3(self, method: str, *options: Any, **arguments: Any) -> Any:
        watch = notices.Watch(self._name, self._attempts, len(arguments.get("Body", b"")))
        try:
            answer = await self._persist(watch, method, *options, **arguments)
        except BaseException:
            watch.over(well=False)
            raise
        watch.over(well=True)
        return answer

    def _name(self) -> str:
        """Who is asked, as a person calls it."""
        endpoint = getattr(getattr(self._s3, "meta", None), "endpoint_url", None)
        return f"S3 at {endpoint or self.endpoint_url or 'AWS'}"

    async def _persist(
        self, watch: notices.Watch, method: str, *options: Any, **arguments: Any
    ) -> Any:
        attempt = 1
        while True:
            started = time.monotonic()
            try:
                return await self._answered(watch, method, *options, **arguments)
            except (*REFUSALS, *_BROKEN) as error:
                keep_answer(error)
                last = attempt >= self._attempts
                renewed = not last and await self._has_renewed(error, started)
                if last or not (renewed or _may_pass(error)):
                    raise
                watch.failed(attempt, explain(error))
            if not renewed:
                # Jitter: of many that were refused at once, not all come back at once.
                await asyncio.sleep(random.uniform(0, RetryPolicy.longest_wait(attempt)))
            attempt += 1
            count_retry()

    async def _has_renewed(self, error: BaseException, started: float) -> bool:
        """Whether there may be other credentials by now than those of a request that was refused.

        botocore renews what it has from a role by itself. What it has read from a file it keeps,
        also when another program has written a new one; and what it did not find, it never finds.
        """
        if kind_of(error) != "credentials":
            return False
        if self._renewing is None:
            self._renewing = asyncio.Lock()
        async with self._renewing:
            if started < self._renewed:
                return True
            if time.monotonic() - self._renewed < _RENEWAL_SECONDS:
                return False
            await self.set_session(refresh=True)
            self._renewed = time.monotonic()
            return True

    # s3fs has bound its own, which would go past the method above.
    call_s3 = sync_wrapper(_call_s3)

    async def _answered(
        self, watch: notices.Watch, method: str, *options: Any, **arguments: Any
    ) -> Any:
        """Make one request, and read the body of its answer."""
        request = super()._call_s3(method, *options, **arguments)
        if "Body" in arguments:
            size = len(arguments["Body"])
            limit = self._timeout + size / _SLOWEST_UPLOAD
            try:
                return await asyncio.wait_for(request, limit)
            except TimeoutError as error:
                raise TimeoutError(
                    str(error) or f"{size:,} bytes were not taken in {limit:.0f} s"
                ) from error
        try:
            answer = await request
        except OSError as error:
            if method == "head_object" and _status(error) in (400, 403):
                # Why is in the body of an answer, and one to HEAD has none: GET is told.
                named = {name: arguments[name] for name in ("Bucket", "Key")}
                told = await super()._call_s3("get_object", *options, **named, Range="bytes=0-0")
                told["Body"].close()
            raise
        watch.answered()
        if "Body" in answer:
            body = answer["Body"]
            try:
                answer["Body"] = _Body(await body.read())
            finally:
                body.close()
        return answer

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Bucket, key and version; what looks like a version is part of the key.

        s3fs would cut ``?versionId=…`` off, and read another object. A version it is only with the
        storage option ``version_aware``.
        """
        if self.version_aware:
            bucket, key, version = super().split_path(path)
            return bucket, key, version
        slashes = path[len(path.rstrip("/")) :]
        path = self._strip_protocol(path).lstrip("/")
        if "/" not in path:
            return path, "", None
        bucket, key = self._find_bucket_key(path)
        return bucket, key + slashes, None

    async def _fetch(
        self, path: str, etag: str | None = None, size: int | None = None
    ) -> tuple[bytes, str]:
        """The whole object as it is stored, in one request, and how it says it is packed.

        Args:
            path: bucket and key, also with ``s3://``.
            etag: what a listing had; None takes whatever is there.
            size: likewise; what is compared when an answer has no ETag.

        Raises:
            ChangedError: the object has another ETag by now.
            ForeignAnswerError: what came is not from S3.
        """
        bucket, key, version = self.split_path(path)
        # A weak tag (W/"…") matches nothing, by the letter of HTTP.
        condition = {"IfMatch": f'"{etag}"'} if etag and '"' not in etag else {}
        try:
            answer = await self._call_s3(
                "get_object", Bucket=bucket, Key=key, **version_id_kw(version), **condition
            )
        except OSError as error:
            if _status(error) == 412:
                raise ChangedError(path) from error
            raise
        # Some look-alikes of S3 ignore the condition.
        found = answer.get("ETag")
        if etag and found and found.strip('"') != etag:
            raise ChangedError(path)
        data = bytes(await answer["Body"].read())
        if etag and not found and size not in (None, len(data)):
            raise ForeignAnswerError(f"{len(data):,} bytes without an ETag, and not the {size:,}")
        return data, str(answer.get("ContentEncoding") or "")

    fetch = sync_wrapper(_fetch)

    def listing(self, bucket: str, prefix: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
        """The objects whose keys begin so, as S3 describes them; a page of them is in memory.

        S3 sorts them by the UTF-8 bytes of the key, which is Python's order of strings.

        Args:
            bucket: its name.
            prefix: what the keys begin with.
            delimiter: that no key has behind the prefix; empty for all of them.
        """
        place = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **place)
            yield from page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            place["ContinuationToken"] = page["NextContinuationToken"]


class _SendingOnce(AIOHTTPSession):
    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session = await super()._get_session(proxy_url)
        # Else aiohttp sends a request again, at once, when the connection breaks.
        session._retry_connection = False
        return session


class _Body:
    """A body that has arrived, as s3fs reads one."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, amount: int | None = None) -> bytes:
        return self._file.read(amount)

    def close(self) -> None:
        self._file.close()


def _status(error: BaseException) -> int | None:
    answer = answer_of(error)
    return None if answer is None else answer.status


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may well succeed in a while."""
    answer = answer_of(error)
    if answer is None:
        return isinstance(error, _BROKEN)
    return answer.status in _BUSY or answer.code in _BUSY_CODES
