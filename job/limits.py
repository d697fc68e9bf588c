"""Limits: how long storage may misbehave, and how large an image may be, before it has failed."""

from dataclasses import dataclass

DEFAULT_PIXEL_LIMIT = 100_000_000
# Seconds in which a connection is made, or never.
_TO_CONNECT = 10.0
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How long storage may misbehave before it has failed.

    Attributes:
        attempts: times that a request is made. The waits between them grow from half a second to
            half a minute, on average; those of eight attempts add up to a minute.
        timeout: seconds to wait for an answer, and for more of one; for a connection, no more than
            ten.
    """

    attempts: int = 8
    timeout: float = 60.0

    @property
    def to_connect(self) -> float:
        """Seconds to wait for a connection."""
        return min(self.timeout, _TO_CONNECT)

    @property
    def longest(self) -> float:
        """Seconds after which a request has surely been given up."""
        waits = sum(self.longest_wait(number) for number in range(1, self.attempts))
        return self.attempts * self.timeout + waits

    @staticmethod
    def longest_wait(attempt: int) -> float:
        """Seconds to wait at most when this attempt has failed."""
        return float(min(2.0 ** (attempt - 1), _LONGEST_WAIT))


DEFAULT_RETRY_POLICY = RetryPolicy()
