"""The files of a Hugging Face model, from a local directory, a URI or the Hub."""

import json
from pathlib import Path
from typing import Any

from job.errors import ConfigError, ModelError
from job.storage import STORAGE_ERRORS, explain, locate

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# JSON and safetensors: nothing that could run code when it is loaded.
_SUFFIXES = (".json", ".safetensors")


def read(
    model: str, revision: str | None, options: dict[str, Any]
) -> tuple[dict[str, bytes], str | None]:
    """The model's files by name, and the Hub commit they are of (None when not from the Hub).

    Raises:
        ModelError: the model cannot be found or reached, or a file it needs is missing.
    """
    if "://" in model:
        _refuse_revision(model, revision)
        files, commit = read_uri(model, options), None
    elif Path(model).expanduser().is_dir():
        _refuse_revision(model, revision)
        files, commit = _read_directory(Path(model).expanduser()), None
    elif _looks_like_a_path(model):
        raise ModelError(
            f"--model {model}: no such directory. Give a directory with {CONFIG}, a URI, or a name"
            " on the Hugging Face Hub"
        )
    else:
        files, commit = _read_hub(model, revision)
    _check(model, files)
    return files, commit


def read_uri(uri: str, options: dict[str, Any]) -> dict[str, bytes]:
    """The JSON and safetensors files directly under a URI, by name.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        place = locate(uri, options)
        files = {
            name: (place / name).read_bytes() for name in place.names() if name.endswith(_SUFFIXES)
        }
    except (*STORAGE_ERRORS, ConfigError) as error:
        raise ModelError(f"--model {uri} cannot be read: {explain(error)}") from error
    if not files:
        raise ModelError(f"--model {uri}: there is no {CONFIG} and no safetensors file there")
    return files


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


def _check(model: str, files: dict[str, bytes]) -> None:
    if CONFIG not in files:
        raise ModelError(
            f"--model {model}: no {CONFIG} there; expected a model in the Hub's format, as"
            " save_pretrained writes it"
        )
    if PREPROCESSOR not in files:
        raise ModelError(
            f"--model {model}: no {PREPROCESSOR} there, so how to prepare images is not known; save"
            " its image processor beside it with save_pretrained"
        )
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelError(
            f"--model {model}: no .safetensors weights there, and pickled weights are not loaded."
            " Convert them with model.save_pretrained(directory)"
        )
    for name in (CONFIG, PREPROCESSOR):
        try:
            content = json.loads(files[name])
        except (ValueError, RecursionError) as error:
            raise ModelError(f"--model {model}: {name} is not valid JSON ({error})") from error
        if not isinstance(content, dict):
            raise ModelError(f"--model {model}: {name} holds no JSON object")
