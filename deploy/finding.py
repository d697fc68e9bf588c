"""Finding: what one check saw, in one line that says what to do."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        verdict: ``wrong`` is what the cluster cannot be made or work with; ``warning`` is what
            could not be looked at.
        subject: what was looked at.
        text: what is there; where that is not ok, also what to do.
    """

    verdict: Literal["ok", "warning", "wrong"]
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:<7}  {self.subject}: {' '.join(self.text.split())}"


def ok(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str) -> Finding:
    """What nobody could look at."""
    return Finding("warning", subject, text)


def wrong(subject: str, text: str) -> Finding:
    """What has to be mended first."""
    return Finding("wrong", subject, text)
