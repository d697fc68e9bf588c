"""Pictures of floating-point samples → 8 bits, by the range that most samples keep to.

Nothing in a file tells which range its floats have. Black…white is the first of these that fits:

1. *0…1* or *0…255*, if samples of just that white recur, and none is above.
2. *0…1*, if nine tenths of the samples lie in it, as most programs write pictures; what is above 1,
   as highlights are, is white. Whole numbers above 1 are none of these, nor is what hardly leaves
   0 (99 % are below 1/16).
3. *0…255*, if nine tenths lie in it, and 1 % reach 64 or all are whole numbers: levels of 8 bits,
   which stay as they are.
4. From the 1st to the 99th percentile: reflectances, heights and depths, decibels. Where these are
   the same, from 0.

In 1 to 3 samples may also lie below 0, by up to a tenth of white or of the 99th percentile.

What stands for no data has no say in it: samples that are not finite, beyond ±1e30, or what the
file says; 0; and a value that recurs, such as -9999, if it is further below (or above) all others
than a quarter of their range, and than they are from each other.
"""

import numpy as np

# What programs fill in where they have no data lies far beyond what any picture has.
_NO_PICTURE = 1e30
_NARROWEST = 1e-30
# How many samples may lie below, and above, the range that the others tell.
_OUTLIERS = 0.01
# Of the known ranges: white, and what at least one sample in a hundred reaches.
_UNIT, _BYTES = (1.0, 1 / 16), (255.0, 64.0)
_INSIDE = 0.9
_BELOW, _ABOVE = 0.1, 1.002
_FAR = 0.25
_SAMPLED = 1 << 22
_LOOKED_AT = 1 << 16


def to_bytes(levels: np.ndarray, no_data: float | None = None) -> np.ndarray:
    """Floats as bytes, by the rule that this module begins with.

    What lies outside the range is clipped, fractions are dropped. Black is what is no number, is
    beyond ±1e30 (but +inf is white), or is ``no_data``.

    Args:
        levels: float32, of any shape; changed.
        no_data: the value that stands for no data, where the file says one.

    Returns:
        uint8, of the same shape.
    """
    outside = ~(np.abs(levels) < _NO_PICTURE)
    if no_data is not None and np.isfinite(no_data):
        outside |= levels == np.float32(no_data)
    # +inf stays the brightest there is, as clipping has it.
    brightest = np.isposinf(levels)
    levels[outside] = 0
    values = levels[levels != 0]
    has_zeros = values.size + np.count_nonzero(outside) < levels.size
    if values.size > _SAMPLED:
        values = values[:: values.size // _SAMPLED]
    values.sort()
    low, high = _range(values, has_zeros) if values.size else (0.0, 1.0)
    with np.errstate(over="ignore"):
        levels -= np.float32(low)
        levels *= np.float32(255.0 / max(high - low, _NARROWEST))
    np.clip(levels, 0, 255, out=levels)
    levels[outside] = 0
    levels[brightest] = 255
    return levels.astype(np.uint8)


def _range(values: np.ndarray, has_zeros: bool) -> tuple[float, float]:
    """Which values are black and white, of samples in ascending order."""
    values = _without_fill(values, has_zeros)
    for white, _ in (_UNIT, _BYTES):
        if (values[-2:] == white).all() and values[0] >= -_BELOW * white:
            return 0.0, white
    values = -_without_fill(-values[::-1], has_zeros)[::-1]
    low, high = _ends(values)
    looked_at = values[:: 1 + values.size // _LOOKED_AT]
    are_whole = bool((looked_at == np.rint(looked_at)).all())
    is_even = values[0] == values[-1] and not has_zeros

    def keep_to(white: float, reached: float) -> bool:
        begin, end = np.searchsorted(values, (-_BELOW * high, _ABOVE * white))
        return end - begin >= _INSIDE * values.size and (is_even or high >= reached)

    if keep_to(*_UNIT) and not (are_whole and high > _ABOVE):
        return 0.0, 1.0
    if keep_to(_BYTES[0], 0 if are_whole else _BYTES[1]):
        return 0.0, 255.0
    return (low, high) if low < high else (min(low, 0.0), max(high, 0.0))


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99th percentile."""
    off = _off(values)
    return float(values[off]), float(values[-1 - off])


def _off(values: np.ndarray) -> int:
    """How many of so many may lie off, at each end; in a small picture a single one."""
    return int(values.size * _OUTLIERS) or int(values.size > 8)


def _without_fill(values: np.ndarray, has_zeros: bool) -> np.ndarray:
    """Without a value that recurs, far below all others, and without what is below it."""
    least, _ = _ends(values)
    begin, end = np.searchsorted(values, least, "left"), np.searchsorted(values, least, "right")
    others = values[end:]
    if end - begin < 2 or not others.size:
        return values
    others = others[_off(others) : others.size - _off(others)]
    if others[0] == others[-1]:
        if not has_zeros:
            return values
        others = np.sort(np.append(others[:1], np.float32(0)))
    gap = float(others[0]) - least
    if gap <= _FAR * float(others[-1] - others[0]) or gap <= float(np.diff(others).max()):
        return values
    return values[end:]
