"""Dataset card: what an OUTPUT says of itself, so that other tools read it without this project.

``labels.json`` has the classes; ``README.md`` is a dataset card by which
``datasets.load_dataset(OUTPUT)`` finds maps and errors; and an empty file in ``maps/`` and
``errors/`` each has the folder's schema, also when no image ended up there.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from job import schema
from job.errors import OutputConflictError, StorageError
from job.models.labels import distinct
from job.outputs import commits
from job.storage import parquet
from job.storage.location import Location

LABELS, CARD = "labels.json", "README.md"
# Sorts before the files of all runs: readers that go by the first file go by this one.
SCHEMA = "0-schema.parquet"

_TEXT = """
# Segmentation maps

`maps/` has one row per image, its map a PNG whose pixel values are class ids; `errors/` has the
images that could not be segmented, and why. `labels.json` has the id, name and color of each class.

```python
import datasets

maps = datasets.load_dataset("the path of this folder", split="train")
maps[0]["map"]  # a PIL image; numpy.asarray of it are the class ids
maps.features["classes"].feature["label"].names  # before datasets 4: ["classes"][0]["label"]
```
"""


def write_card(output: Location, names: Sequence[str], colours: np.ndarray) -> None:
    """Write what is not there yet; a README.md of somebody else stays as it is.

    Args:
        output: the run's OUTPUT, whose maps were checked to be of this model.
        names: class names by class id.
        colours: (classes, 3) uint8, of each class.

    Raises:
        OutputConflictError: ``labels.json`` has other classes, and there are maps of them.
        StorageError: ``labels.json`` is damaged.
    """
    root = output.names()
    labels = schema.described(names, colours)
    before = read_labels(output) if LABELS in root else None
    outdated = before is not None and before != labels
    if outdated and commits.runs(output):
        raise OutputConflictError(
            f"{(output / LABELS).uri} has other classes than the model: "
            f"{_difference(before or [], labels)}. Use another OUTPUT; or, if the file was edited,"
            " remove it, and the run writes it again"
        )
    if before != labels:
        (output / LABELS).write_bytes(_json(labels))
    # A card that nobody has changed is for the classes before.
    if CARD not in root or (
        outdated and (output / CARD).read_bytes() == card([label["name"] for label in before or []])
    ):
        (output / CARD).write_bytes(card(names))
    if not (output / "errors" / SCHEMA).exists():
        (output / "errors" / SCHEMA).write_bytes(parquet.schema_to_bytes(schema.ERRORS))


def write_maps_schema(output: Location, names: Sequence[str], colours: np.ndarray) -> None:
    """Write the file that says what the columns of ``maps/`` are, once a run has come to its end.

    Not before: what is in ``maps/`` while a run goes on is maps.
    """
    file, content = output / "maps" / SCHEMA, parquet.schema_to_bytes(schema.maps(names, colours))
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)


def is_described(output: Location) -> bool:
    """Whether an OUTPUT has all that the functions above write."""
    files = [output / folder / SCHEMA for folder in ("maps", "errors")]
    return {LABELS, CARD} <= set(output.names()) and all(file.exists() for file in files)


def read_labels(output: Location) -> list[dict[str, Any]] | None:
    """The classes of an OUTPUT, by their ids; None where no run has written them yet.

    Raises:
        StorageError: ``labels.json`` is damaged.
    """
    file = output / LABELS
    try:
        labels = json.loads(file.read_bytes())
        if all(
            label["id"] == number and isinstance(label["name"], str)
            for number, label in enumerate(labels)
        ):
            return list(labels)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise StorageError(
        f"{file.uri} is damaged. Remove it; the next run on this OUTPUT writes it again"
    )


def card(names: Sequence[str]) -> bytes:
    """The text of the dataset card."""
    folders = {"maps": schema.MAPS, "errors": schema.ERRORS}
    configs: list[dict[str, Any]] = [
        {"config_name": folder, "data_files": f"{folder}/*.parquet"} for folder in folders
    ]
    configs[0]["default"] = True
    infos = [
        {"config_name": folder, "features": [_feature(field, names) for field in of]}
        for folder, of in folders.items()
    ]
    head = yaml.safe_dump(
        {"configs": configs, "dataset_info": infos}, sort_keys=False, allow_unicode=True
    )
    return f"---\n{head}---\n{_TEXT}".encode()


def _feature(field: pa.Field, names: Sequence[str]) -> dict[str, Any]:
    """A feature of ``datasets`` as its dataset cards spell it."""
    if field.name == "map":
        return {"name": field.name, "dtype": "image"}
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": [_feature(f, names) for f in field.type.value_type]}
    if field.name == "label":
        by_id = {str(label): name for label, name in enumerate(distinct(names))}
        return {"name": field.name, "dtype": {"class_label": {"names": by_id}}}
    dtype = "float32" if field.type == pa.float32() else str(field.type)
    return {"name": field.name, "dtype": dtype}


def _json(labels: list[dict[str, Any]]) -> bytes:
    lines = ",\n".join(f"  {json.dumps(label, ensure_ascii=False)}" for label in labels)
    return f"[\n{lines}\n]\n".encode()


def _difference(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    for old, new in zip(before, now, strict=False):
        for key in ("name", "color"):
            if old.get(key) != new[key]:
                return f"the {key} of class {new['id']} is {old.get(key)!r} there, not {new[key]!r}"
    return f"{len(before):,} there, {len(now):,} of the model"
