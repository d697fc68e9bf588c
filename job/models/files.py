"""Files: those of a Hugging Face model, from a local directory, a URI or the Hub."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from job.errors import ConfigError, ModelError
from job.models.families import refuse_other_formats
from job.storage.opening import locate
from job.storage.refusals import STORAGE_ERRORS, explain

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# Where newer models have the image processor's settings, among those of others.
PROCESSOR = "processor_config.json"
# JSON and safetensors: nothing that could run code when it is loaded.
_SUFFIXES = (".json", ".safetensors")


def read(
    model: str, revision: str | None, options: dict[str, Any]
) -> tuple[dict[str, bytes], str | None]:
    """The model's files by name, and the Hub commit they are of (None when not from the Hub).

    Raises:
        ModelError: the model cannot be found or reached, or a file it needs is missing.
    """
    names: Callable[[], Iterable[str]]
    if "://" in model:
        _refuse_revision(model, revision)
        files, names, commit = _read_known(model, options), lambda: _names(model, options), None
        if not files and not names():
            raise _nothing_there(model)
    elif Path(model).expanduser().is_dir():
        _refuse_revision(model, revision)
        directory = Path(model).expanduser()
        files, names, commit = _read_directory(directory), lambda: os.listdir(directory), None
    elif _looks_like_a_path(model):
        raise ModelError(
            f"--model {model}: no such directory. Give a directory with {CONFIG}, a URI, or a name"
            " on the Hugging Face Hub"
        )
    else:
        files, commit = _read_hub(model, revision)
        names = lambda: _names_on_hub(model, commit)  # noqa: E731
    _check(model, files, names)
    return files, commit


def read_uri(uri: str, options: dict[str, Any]) -> dict[str, bytes]:
    """The JSON and safetensors files directly under a URI, by name.

    Raises:
        ModelError: it cannot be read.
    """
    files = _read_known(uri, options)
    if not files:
        raise _nothing_there(uri)
    return files


def _nothing_there(uri: str) -> ModelError:
    return ModelError(f"--model {uri}: there is no {CONFIG} and no safetensors file there")


def _read_known(uri: str, options: dict[str, Any]) -> dict[str, bytes]:
    try:
        place = locate(uri, options)
        return {
            name: (place / name).read_bytes() for name in place.names() if name.endswith(_SUFFIXES)
        }
    except (*STORAGE_ERRORS, ConfigError) as error:
        raise ModelError(f"--model {uri} cannot be read: {explain(error)}") from error


def _names(uri: str, options: dict[str, Any]) -> Iterable[str]:
    try:
        return locate(uri, options).names()
    except (*STORAGE_ERRORS, ConfigError):
        return ()  # the message is then without what else is there


def _names_on_hub(model: str, commit: str | None) -> Iterable[str]:
    import httpx
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return list_repo_files(model, revision=commit)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, httpx.HTTPError):
        return ()  # likewise


def _read_directory(directory: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name.endswith(_SUFFIXES)
    }


def _looks_like_a_path(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or model.count("/") > 1


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(
            f"--revision {revision} goes with a name on the Hub; {model} is not one. Leave it out"
        )


def _read_hub(model: str, revision: str | None) -> tuple[dict[str, bytes], str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        snapshot = Path(
            snapshot_download(
                model, revision=revision, allow_patterns=[f"*{suffix}" for suffix in _SUFFIXES]
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"--model {model}: neither a directory here nor a possible name on the Hub ({error})"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"--model {model} is gated. Ask for access on the Hub, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"--model {model}: the Hub has no such model, or it is private. Check the spelling;"
            " set HF_TOKEN for a private one"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"--revision {revision}: the model {model} has no such branch, tag or commit"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"--model {model}: the Hugging Face Hub cannot be reached, and the model is not in the"
            " local cache. Give a local directory or an s3:// URI with --model, or fill the cache"
            " on a machine with access (hf download) and set HF_HUB_OFFLINE=1 here"
        ) from error
    return _read_directory(snapshot), snapshot.name


def preprocessing(files: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The image processor's settings; None when no file has any.

    Raises:
        ValueError: naming the file that is not a JSON object.
    """
    nested = _parsed(PROCESSOR, files).get("image_processor") if PROCESSOR in files else None
    if isinstance(nested, dict):  # transformers prefers it as well
        return nested
    return _parsed(PREPROCESSOR, files) if PREPROCESSOR in files else None


def _parsed(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        content = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} holds no JSON object")
    return content


def _check(model: str, files: dict[str, bytes], names: Callable[[], Iterable[str]]) -> None:
    """Refuse what is incomplete or something else; ``names`` tells of files that were not read."""
    weights = any(name.endswith(".safetensors") for name in files)
    called = f"--model {model}"
    refuse_other_formats(called, [*files, *(() if weights else names())])
    if CONFIG not in files:
        raise ModelError(
            f"{called}: no {CONFIG} there; expected a model in the Hub's format, as"
            " save_pretrained writes it"
        )
    try:
        _parsed(CONFIG, files)
        settings = preprocessing(files)
    except ValueError as error:
        raise ModelError(f"{called}: {error}") from error
    if settings is None:
        raise ModelError(
            f"{called}: no {PREPROCESSOR} there, so how to prepare images is not known; save"
            " its image processor beside it with save_pretrained"
        )
    if not weights:
        raise ModelError(
            f"{called}: no .safetensors weights there. Put them there with"
            " model.save_pretrained(directory)"
        )
