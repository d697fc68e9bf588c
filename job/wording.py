"""Wording: numbers with the nouns that they count, and time."""


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 image``, ``1,200 images``.

    Args:
        number: how many.
        noun: for one.
        several: for any other number, when it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min 20 s``, ``5 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
