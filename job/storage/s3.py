"""S3: places in buckets, also in those of other storage that speaks S3."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

from job.limits import RetryPolicy
from job.storage.fsspec_location import FsspecLocation
from job.storage.location import StorageOptions, in_the_way, not_there, printable
from job.storage.objects import Listing, StoredObject, TellUnlisted, tag_of
from job.storage.packing import unpacked
from job.storage.patterns import is_pattern
from job.storage.refusals import answer_of
from job.storage.s3_requests import S3
from job.storage.uris import scheme_of


@dataclass(frozen=True)
class S3Location(FsspecLocation):
    """A key in a bucket, or a prefix of keys."""

    fs: S3

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> "S3Location":
        # A cached listing would hide what other workers have just written. A file that is open is
        # Parquet, of which a few columns are wanted: reading ahead would fetch the maps as well.
        own = {"use_listings_cache": False, "default_cache_type": "none"}
        fs = S3(retry_policy=retry_policy, **{**own, **options})
        fs.connect()  # options that do not fit come to light here, not at the first object
        return cls(fs, S3._strip_protocol(uri).strip("/") or "/")

    @property
    def uri(self) -> str:
        return printable(f"s3://{self.path}")

    def holds(self, uri: str) -> bool:
        return scheme_of(uri) in S3.protocol

    def listing(self, tell: TellUnlisted) -> Listing:
        """See :meth:`Location.listing`; no more than a page of it is in memory.

        A prefix may end within a name.
        """
        bucket, key, _ = self.fs.split_path(self.path)
        if not bucket:
            return super().listing(tell)
        folder = f"{key}/" if key else ""
        found = self._under(bucket, folder)
        first = next(found, None)
        if first is not None or not key:
            objects = found if first is None else chain([first], found)
            return Listing("folder", f"{bucket}/{folder}", objects)
        named = self._named(bucket, key)
        if named is not None:
            return Listing("object", named.path, iter([named]))
        if is_pattern(self.path):
            matched = self._matched()
            first = next(matched.objects, None)
            if first is not None:
                return Listing("glob", matched.root, chain([first], matched.objects))
        return Listing("folder", self.path.rpartition("/")[0], self._under(bucket, key))

    def _named(self, bucket: str, key: str) -> StoredObject | None:
        """The object of this very key. HEAD may find it by another: some look-alikes of S3 clean
        the path of a request."""
        if self.fs.version_aware:
            return next(self._single().objects) if self.fs.isfile(self.path) else None
        first = next(self._under(bucket, key), None)
        return first if first is not None and first.path == f"{bucket}/{key}" else None

    def _under(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        for found in self.fs.listing(bucket, prefix):
            yield StoredObject(f"{bucket}/{found['Key']}", found["Size"], tag_of(found))

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        data: bytes
        data, encoding = self.fs.fetch(path, etag, size)
        return data if limit is None else unpacked(data, encoding, limit)

    def entries(self) -> dict[str, int]:
        """See :meth:`Location.entries`; one request for each 1,000 files and folders."""
        bucket, key, _ = self.fs.split_path(self.path)
        folder = f"{key}/" if key else ""
        try:
            found = list(self.fs.listing(bucket, folder, delimiter="/")) if bucket else []
        except FileNotFoundError:  # no such bucket
            return {}
        sizes = {entry["Key"].removeprefix(folder): int(entry["Size"]) for entry in found}
        sizes.pop("", None)  # a console's stand-in for an empty folder
        return dict(sorted(sizes.items()))

    def names(self) -> list[str]:
        return list(self.entries())

    def size(self) -> int | None:
        """See :meth:`Location.size`; one request, which no listing that lags can mislead."""
        bucket, key, _ = self.fs.split_path(self.path)
        if not key:
            return None
        try:
            return int(self.fs.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])
        except FileNotFoundError:
            return None

    def move_to(self, target: Self) -> None:
        """See :meth:`Location.move_to`; two requests up to 5 GB: a copy, then a deletion."""
        if target.path == self.path:
            if self.size() is None:
                raise not_there(self.path)
            return
        bucket, key, _ = self.fs.split_path(self.path)
        to_bucket, to_key, _ = self.fs.split_path(target.path)
        source = {"Bucket": bucket, "Key": key}
        try:
            self.fs.call_s3("copy_object", Bucket=to_bucket, Key=to_key, CopySource=source)
        except OSError as error:
            answer = answer_of(error)
            if answer is None or answer.status != 400:
                raise
            # Most likely it is larger than what S3 copies at once: now part by part.
            self.fs.cp_file(self.path, target.path)
        self.delete()

    def obstacle(self) -> str:
        bucket, key, _ = self.fs.split_path(self.path)
        # One page also tells whether the bucket is there, and may be listed.
        first = next(self._under(bucket, key), None)
        is_file = first is not None and key != "" and first.path == f"{bucket}/{key}"
        return in_the_way(self.path) if is_file else ""
