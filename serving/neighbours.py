"""A sequence cut into neighbours that are dealt with together. Knows sizes; not of what."""

from collections.abc import Iterable


def neighbours(sizes: Iterable[int], *, max_size: int, max_number: int) -> list[slice]:
    """Slices of at most `max_number` whose `sizes` come to at most `max_size`, unless one alone is larger."""
    found: list[slice] = []
    start = stop = total = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start >= max_number or total + size > max_size):
            found.append(slice(start, at))
            start, total = at, 0
        total += size
        stop = at + 1
    if start < stop:
        found.append(slice(start, stop))
    return found
