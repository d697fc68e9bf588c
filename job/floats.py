"""Pictures of floating-point samples → 8 bits."""

import numpy as np

# What programs fill in where they have no data lies far beyond what any picture has.
_NO_PICTURE = 1e30
# Of the samples that are not 0: how many may lie above the range that the others tell.
_OUTLIERS = 0.01
_SAMPLED = 1 << 22


def to_bytes(levels: np.ndarray, no_data: float | None = None) -> np.ndarray:
    """Floats as bytes, by the range that 99 % of them keep to.

    Samples that are not finite, beyond ±1e30, equal to ``no_data``, or 0 have no say in it. If 99 %
    of the others are at most 1 (or there are none), 0…1 becomes 0…255; if at most 255, values stay
    as they are; else the range from the 1st to the 99th percentile becomes 0…255. What lies outside
    is clipped, fractions are dropped, and what is no number or no data is black.

    Args:
        levels: float32, of any shape; changed.
        no_data: the value that stands for no data.
    """
    outside = ~(np.abs(levels) < _NO_PICTURE)
    if no_data is not None and np.isfinite(no_data):
        outside |= levels == np.float32(no_data)
    # +inf stays the brightest there is, as clipping has it.
    brightest = np.isposinf(levels)
    levels[outside] = 0
    values = levels[levels != 0]
    if values.size > _SAMPLED:
        values = values[:: values.size // _SAMPLED]
    low, high = 0.0, 1.0
    if values.size:
        ordered = np.sort(values)
        allowed = int(len(ordered) * _OUTLIERS)
        # In a small picture a single sample may be off.
        allowed = max(allowed, 1) if len(ordered) > 8 else allowed
        top = float(ordered[-1 - allowed])
        if top > 255.5:
            low, high = float(ordered[allowed]), top
        elif top > 1.001:
            high = 255.0
    levels -= np.float32(low)
    levels *= np.float32(255.0 / (high - low) if high > low else 0.0)
    np.clip(levels, 0, 255, out=levels)
    levels[outside] = 0
    levels[brightest] = 255
    return levels.astype(np.uint8)
