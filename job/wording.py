"""Wording: numbers with the nouns that they count."""


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 image``, ``1,200 images``.

    Args:
        number: how many.
        noun: for one.
        several: for any other number, when it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
