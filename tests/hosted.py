"""Filesystems whose URIs say more than their paths do: a host, an account, a repository."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options

# What is there, by host.
_HOSTS: dict[str, dict[str, object]] = {}


class Hosted(MemoryFileSystem):
    """As ftp, sftp, hdfs and others: the URI names a host, and paths on it do not."""

    protocol: str | tuple[str, ...] = "hosted"

    def __init__(self, host: str = "", **options: object) -> None:
        super().__init__(**options)
        self.store = _HOSTS.setdefault(host, {})
        self.pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + infer_storage_options(path)["path"].strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, object]:
        told = infer_storage_options(path)
        return {k: v for k, v in told.items() if k not in ("path", "protocol")}


class Contained(Hosted):
    """As Azure's: ``container@account`` in URIs, of which paths have the container."""

    protocol = "contained"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        told = infer_storage_options(path)
        return f"{told.get('username') or told.get('host', '')}{told['path']}".strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, object]:
        told = infer_storage_options(path)
        return {"host": told["host"]} if "username" in told else {}


class Repository(Hosted):
    """As git's: where it is stands in front of a colon in the path."""

    protocol = "repository"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("repository://").rpartition(":")[2]

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, object]:
        where, mark, _ = path.removeprefix("repository://").rpartition(":")
        return {"host": where} if mark else {}


class Buckets(Hosted):
    """As Google's: of two schemes, and paths begin with the bucket."""

    protocol = ("gs", "gcs")

    def __init__(self, **options: object) -> None:
        super().__init__("buckets", **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("gs://").removeprefix("gcs://").strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, object]:
        return {}


for each in (Hosted, Contained, Repository, Buckets):
    for scheme in (each.protocol,) if isinstance(each.protocol, str) else each.protocol:
        fsspec.register_implementation(scheme, each, clobber=True)
