"""Who sends a request, and what they may use. Knows neither keys nor how use is counted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may use; None is unlimited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds one API key; `name` is what logs and counters may show of the key."""

    name: str
    limits: Limits


ANONYMOUS = Caller("anonymous", UNLIMITED)
