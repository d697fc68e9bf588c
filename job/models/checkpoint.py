"""Checkpoint: a model to predict with, as a dict, a directory, a URI or a name on the Hub.

The interface is the one Ray AIR documented for ``ray.air.Checkpoint`` (Ray 2.3). A Checkpoint is a
reference: it travels between processes as bytes that hold no live model, and what it stands for is
built where ``to_dict`` or ``as_directory`` is called.
"""

import contextlib
import copy
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.errors import ConfigError, ModelError
from job.models.files import read, read_uri
from job.wording import counted

if TYPE_CHECKING:
    from ray.data.preprocessor import Preprocessor

_PREPROCESSOR = "_preprocessor"
_DICT_FILE = "dict_checkpoint.pkl"


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
        name: what the user called it: a name on the Hub, a path or a URI.
        revision: the commit on the Hub, None elsewhere.
        digest: SHA-256 over the names and contents of its files.
    """

    name: str
    revision: str | None
    digest: str


class Checkpoint:
    """Weights, image preprocessor, labels, or whatever else a Predictor is built from.

    Made by one of ``from_dict``, ``from_directory``, ``from_uri`` and ``from_model``.
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        directory: str | None = None,
        uri: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        preprocessor: "Preprocessor | None" = None,
        origin: Origin | None = None,
    ) -> None:
        sources = [data, files, directory, uri]
        if sum(source is not None for source in sources) != 1:
            raise ConfigError(
                "a Checkpoint is made by Checkpoint.from_dict, from_directory, from_uri or"
                " from_model"
            )
        self._data = dict(data) if data is not None else None
        self._files = dict(files) if files is not None else None
        self._directory = directory
        self._uri = uri
        self._storage_options = dict(storage_options or {})
        self._preprocessor = preprocessor
        self.origin = origin

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Checkpoint":
        """A checkpoint of Python objects. Hugging Face models in it survive the way to a worker."""
        return cls(data=data, preprocessor=data.get(_PREPROCESSOR))

    @classmethod
    def from_directory(
        cls, path: str | os.PathLike[str], preprocessor: "Preprocessor | None" = None
    ) -> "Checkpoint":
        """A checkpoint of the files in a local directory.

        Raises:
            ModelError: there is no such directory.
        """
        directory = Path(path).expanduser()
        if not directory.is_dir():
            raise ModelError(f"no directory {str(path)!r} to load a model from")
        return cls(directory=str(directory.resolve()), preprocessor=preprocessor)

    @classmethod
    def from_uri(
        cls,
        uri: str,
        storage_options: Mapping[str, Any] | None = None,
        preprocessor: "Preprocessor | None" = None,
    ) -> "Checkpoint":
        """A checkpoint of the files under a URI, fetched where they are used."""
        return cls(uri=uri, storage_options=storage_options, preprocessor=preprocessor)

    @classmethod
    def from_model(
        cls,
        model: str,
        revision: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "Checkpoint":
        """A Hugging Face model: a name on the Hub, a local directory, or the URI of one.

        The files (JSON and safetensors only) are read here, once; they reach the workers through
        Ray's object store, so that workers need neither the Hub nor credentials for it.

        Raises:
            ModelError: it cannot be found, reached or read, or has no safetensors weights.
        """
        files, commit = read(model, revision, dict(storage_options or {}))
        return cls(files=files, origin=Origin(model, commit, _digest(files)))

    @property
    def is_dict(self) -> bool:
        """Whether it was made by ``from_dict``."""
        return self._data is not None

    def to_dict(self) -> dict[str, Any]:
        """The objects of a dict checkpoint; the bytes of each file, by relative path, of others.

        Raises:
            ConfigError: a directory that holds a pickled dict: nothing is unpickled from storage.
        """
        if self._data is not None:
            return {name: _unpacked(value) for name, value in self._data.items()}
        with self.as_directory() as directory:
            files = _read_tree(directory)
        if _DICT_FILE in files:
            raise ConfigError(
                f"{self!r} holds a pickled dict ({_DICT_FILE}), and nothing is unpickled from"
                " storage; load it yourself and use Checkpoint.from_dict"
            )
        return dict(files)

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        """A local directory with the checkpoint's files, there for as long as the context."""
        if self._directory is not None:
            yield self._directory
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as directory:
            self.to_directory(directory)
            yield directory

    def to_directory(self, path: str | os.PathLike[str]) -> str:
        """Write the checkpoint's files into a directory, made if needed; returns its path."""
        files = self._as_files()
        for name, content in files.items():
            target = Path(path) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return str(path)

    def without_weights(self) -> "Checkpoint":
        """Only what describes the model: its JSON files."""
        files = self._as_files().items()
        described = {name: content for name, content in files if name.endswith(".json")}
        return Checkpoint(files=described, origin=self.origin)

    def get_preprocessor(self) -> "Preprocessor | None":
        """The preprocessor that goes with the model, if any."""
        return self._preprocessor

    def set_preprocessor(self, preprocessor: "Preprocessor | None") -> None:
        """Say which preprocessor goes with the model."""
        self._preprocessor = preprocessor

    def __repr__(self) -> str:
        if self.origin is not None:
            revision = f"@{self.origin.revision[:12]}" if self.origin.revision else ""
            return f"Checkpoint({self.origin.name}{revision})"
        if self._data is not None:
            return f"Checkpoint(dict: {', '.join(map(str, self._data)) or 'empty'})"[:80]
        return (
            f"Checkpoint({self._directory or self._uri or counted(len(self._files or ()), 'file')})"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._data is not None:
            state["_data"] = {name: _packed(value) for name, value in self._data.items()}
        if self._directory is not None:
            # Another node may not have this directory.
            state.update(_files=_read_tree(self._directory), _directory=None)
        return state

    def _as_files(self) -> dict[str, bytes]:
        if self._files is not None:
            return self._files
        if self._directory is not None:
            return _read_tree(self._directory)
        if self._uri is not None:
            return read_uri(self._uri, self._storage_options)
        packed = {name: _packed(value) for name, value in (self._data or {}).items()}
        return {_DICT_FILE: pickle.dumps(packed)}


class _PackedModel:
    """A Hugging Face model as its class, configuration and weights.

    A SegFormer does not survive pickling (transformers 5.23): after a forward pass it holds a
    ``ContextVar``, and a pickled one has lost the hooks by which it records hidden states.
    """

    def __init__(self, model: Any) -> None:
        from safetensors.torch import save

        self._class = type(model)
        self._config = model.config
        self._training = model.training
        # Tied weights share storage, which safetensors refuses: give each name its own copy.
        self._weights = save({k: v.detach().cpu().clone() for k, v in model.state_dict().items()})

    def unpack(self) -> Any:
        from safetensors.torch import load

        weights = load(self._weights)
        model = self._class(self._config)
        dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        if len(dtypes) == 1:
            model = model.to(dtypes.pop())
        model.load_state_dict(weights)
        return model.train(self._training)


def in_float32(model: Any) -> Any:
    """A model whose floats are float32: itself, or a copy when it has others; pixels are float32.

    Args:
        model: a ``torch.nn.Module``; it is left as it is.
    """
    import torch

    def others() -> Iterator[torch.Tensor]:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                yield tensor

    first = next(others(), None)
    if first is None:
        return model
    packed = _packed(model)
    copied = packed.unpack() if isinstance(packed, _PackedModel) else copy.deepcopy(model)
    return copied.to(first.device, torch.float32)


def _packed(value: Any) -> Any:
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(value, transformers.PreTrainedModel):
        return _PackedModel(value)
    return value


def _unpacked(value: Any) -> Any:
    return value.unpack() if isinstance(value, _PackedModel) else value


def _read_tree(directory: str) -> dict[str, bytes]:
    root = Path(directory)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()
