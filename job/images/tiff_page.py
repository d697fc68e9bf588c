"""TIFF page: what the tags of a file's first page say; nothing that they point to is followed."""

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

UINT, INT, FLOAT = 1, 2, 3
BLACK_IS_ZERO = 1
NO_COMPRESSION = 1
_MOST_ENTRIES = 4096
# Of numbers, by the standard's codes for them.
_TYPES = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    11: "f4",
    12: "f8",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
_WANTED = frozenset(
    (
        *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324),
        *(325, 338, 339, 347, 513, 514, 42113),
    )
)


@dataclass(frozen=True)
class Page:
    """What the tags of the first page say; missing ones have the standard's default."""

    order: str
    is_big: bool
    tags: dict[int, np.ndarray]

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        values = self.tags.get(tag)
        return int(values[0]) if values is not None and len(values) else default

    @cached_property
    def width(self) -> int:
        return self.number(256, 0)

    @cached_property
    def height(self) -> int:
        return self.number(257, 0)

    @cached_property
    def bands(self) -> int:
        return self.number(277, 1)

    @cached_property
    def bits(self) -> int:
        """Bits of a sample; 0 where bands differ."""
        values = {int(value) for value in self.tags.get(258, np.array([1]))}
        return values.pop() if len(values) == 1 else 0

    @cached_property
    def sample_format(self) -> int:
        """Unsigned, signed or floating; 0 where bands differ."""
        values = {int(value) for value in self.tags.get(339, np.array([UINT]))}
        kind = values.pop() if len(values) == 1 else 0
        return UINT if kind == 4 else kind  # "undefined" is read as unsigned

    @cached_property
    def compression(self) -> int:
        return self.number(259, NO_COMPRESSION)

    @cached_property
    def colours(self) -> int:
        return self.number(262, BLACK_IS_ZERO)

    @cached_property
    def is_big_endian_bigtiff(self) -> bool:
        return self.is_big and self.order == ">"

    @cached_property
    def is_planar(self) -> bool:
        return self.number(284, 1) == 2 and self.bands > 1

    @cached_property
    def orientation(self) -> int:
        return self.number(274, 1)

    @cached_property
    def is_tiled(self) -> bool:
        return 322 in self.tags

    @cached_property
    def segment_size(self) -> tuple[int, int]:
        """Width and height of a tile, or of a strip."""
        if self.is_tiled:
            return self.number(322, 0), self.number(323, 0)
        return self.width, min(self.number(278, self.height), self.height)

    @cached_property
    def offsets(self) -> np.ndarray:
        return self.tags.get(324 if self.is_tiled else 273, np.empty(0, np.int64))

    @cached_property
    def sizes(self) -> np.ndarray:
        return self.tags.get(325 if self.is_tiled else 279, np.empty(0, np.int64))

    @cached_property
    def no_data(self) -> float | None:
        """The value that stands for no data, as GDAL writes it."""
        text = self.tags.get(42113)
        try:
            return float(text.tobytes().split(b"\0")[0]) if text is not None else None
        except ValueError:
            return None


def first_page(data: bytes) -> Page | None:
    """The first page of a TIFF or BigTIFF; None of a file whose tags cannot be read."""
    order = "<" if data.startswith(b"II") else ">"
    try:
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        if version == 43:
            (place,) = struct.unpack_from(f"{order}Q", data, 8)
            (count,) = struct.unpack_from(f"{order}Q", data, place)
            place, entry, inline = place + 8, f"{order}HHQ", 8
        else:
            (place,) = struct.unpack_from(f"{order}I", data, 4)
            (count,) = struct.unpack_from(f"{order}H", data, place)
            place, entry, inline = place + 2, f"{order}HHI", 4
        if count > _MOST_ENTRIES:
            return None
        length = struct.calcsize(entry) + inline
        tags: dict[int, np.ndarray] = {}
        for at in range(place, place + count * length, length):
            tag, kind, number = struct.unpack_from(entry, data, at)
            if tag not in _WANTED or tag in tags or kind not in _TYPES:
                continue
            dtype = np.dtype(_TYPES[kind]).newbyteorder("<" if order == "<" else ">")
            value = at + length - inline
            if number * dtype.itemsize > inline:
                (value,) = struct.unpack_from(f"{order}{'Q' if inline == 8 else 'I'}", data, value)
            if value + number * dtype.itemsize > len(data):
                return None
            tags[tag] = np.frombuffer(data, dtype, number, value)
    except struct.error:
        return None
    return Page(order, version == 43, tags)
