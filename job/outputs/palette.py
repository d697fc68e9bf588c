"""Palette: the colours of class ids."""

import colorsys
from collections.abc import Sequence

import numpy as np

# ADE20K's 150 colours in the order of its classes (wall is 0): the table of the scene-parsing
# benchmark, http://sceneparsing.csail.mit.edu. Road and skyscraper share one.
# Colours, also the generated ones, are compared with OUTPUT's labels.json
# (dataset_card.write_card): after one is corrected, runs with work left refuse existing OUTPUTs.
_ADE20K = bytes.fromhex(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d787846"
    "08ff33ff06528fff8cccff04ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdc"
    "ff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ffff3d06ffc207ff7a0800ff14"
    "ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ff"
    "ff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00"
    "008fff33ff000052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014"
    "ffb8b8001fff00ff3d0047ffff00cc00ffc200ff52000aff0070ff3300ff00c2ff007aff00ffa3ff9900"
    "00ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ffff001f00b8ff00d6ffff0070"
    "5cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff"
    "4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)
_ADE20K_MARKS = {0: "wall", 6: "road", 48: "skyscraper", 149: "flag"}


def palette(names: Sequence[str]) -> np.ndarray:
    """One colour per class, (len(names), 3) uint8.

    ADE20K's classes get ADE20K's colours, class *c* the colour of class *c*. Any other label set
    gets generated colours: all different, and always the same for the same class id.
    """
    if is_ade20k(names):
        return np.frombuffer(_ADE20K, np.uint8).reshape(150, 3).copy()
    return _generated(len(names))


def is_ade20k(names: Sequence[str]) -> bool:
    """Whether these are the 150 classes of ADE20K's scene-parsing benchmark."""
    return len(names) == 150 and all(
        names[label].split(",")[0] == name for label, name in _ADE20K_MARKS.items()
    )


def _generated(count: int) -> np.ndarray:
    # Hues a golden angle apart never come close early on, and the colour of a class does not
    # depend on how many classes follow it.
    golden = 0.61803398875
    colours: list[tuple[int, ...]] = []
    seen: set[tuple[int, ...]] = set()
    shades = [(0.65, 0.95), (0.85, 0.7), (0.45, 0.85), (0.9, 0.95), (0.6, 0.55)]
    step = 0
    while len(colours) < count:
        saturation, value = shades[(step // 12) % len(shades)]
        rgb = colorsys.hsv_to_rgb((0.08 + step * golden) % 1.0, saturation, value)
        colour = tuple(round(255 * channel) for channel in rgb)
        step += 1
        if colour not in seen:
            seen.add(colour)
            colours.append(colour)
    return np.array(colours, np.uint8).reshape(count, 3)
