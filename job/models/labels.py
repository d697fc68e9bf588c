"""Labels: the names of a model's classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from job.errors import ModelError

# Maps hold class ids as uint16 at most.
_MOST_CLASSES = 1 << 16
# Every row of maps/ repeats the names of its classes.
_LONGEST_NAME = 256


def label_names(id2label: Mapping[int, str] | Mapping[str, str]) -> tuple[str, ...]:
    """The model's own class names by class id, trimmed of stray spaces.

    They come from a stranger's ``config.json``: any characters may be in them, and two classes may
    have the same name. Whoever shows them redacts them.

    Raises:
        ModelError: what is there are no names by class number.
    """
    if not isinstance(id2label, Mapping) or not id2label:
        raise ModelError("the model's id2label names no classes; expected {0: 'wall', …}")
    names: dict[int, str] = {}
    for label, name in id2label.items():
        number = _class_number(label)
        if number in names:
            raise ModelError(f"the model's id2label names class {number} twice")
        names[number] = _class_name(number, name)
    return tuple(names.get(label, f"class {label}") for label in range(max(names) + 1))


def class_names(config: Any) -> tuple[str, ...]:
    """Names by the class ids of maps.

    A model of one class has one score per pixel, and says by its sigmoid whether the pixel is of
    that class: its maps have 1 for the class and 0 for the background.

    Raises:
        ModelError: the configuration names no classes, or leaves numbers out: transformers counts
            the names, and takes the model to have as many classes.
    """
    names = label_names(config.id2label)
    if len(config.id2label) == 1:
        return "background", names[-1]
    if len(config.id2label) < len(names):
        raise ModelError(
            f"the model's id2label names {len(config.id2label)} classes and counts up to"
            f" {len(names) - 1}: which of its scores are whose is not known. Number the classes"
            " from 0 on in its config.json, and leave none out"
        )
    return names


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with its number behind each that is not the only one of its kind.

    ``datasets.ClassLabel`` takes no two equal names.
    """
    occurrences = Counter(names)
    taken, found = set(names), []
    for label, name in enumerate(names):
        unique = name
        if occurrences[name] > 1:
            while unique in taken:
                unique = f"{unique} ({label})"
            taken.add(unique)
        found.append(unique)
    return found


def _class_number(label: object) -> int:
    # int() would also take " 1", "1_0" and True.
    written = isinstance(label, str) and label.isascii() and label.isdigit() and len(label) < 10
    if not written and type(label) is not int:
        shown = ascii(label)[:40]
        raise ModelError(f"the model's id2label has {shown} for the number of a class")
    number = int(str(label))
    if not 0 <= number < _MOST_CLASSES:
        raise ModelError(
            f"the model's id2label has class {number}; classes count from 0, and there can be"
            f" {_MOST_CLASSES:,} at most"
        )
    return number


def _class_name(number: int, name: object) -> str:
    if not isinstance(name, str | int | float):
        raise ModelError(f"the model's id2label: the name of class {number} is no text")
    text = str(name).strip()
    if len(text) > _LONGEST_NAME:
        raise ModelError(
            f"the model's name for class {number} has {len(text):,} characters;"
            f" {_LONGEST_NAME} are enough"
        )
    # Half of a surrogate pair, as JSON can escape it, cannot be written as UTF-8.
    return text.encode(errors="replace").decode()
