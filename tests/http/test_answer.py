"""One body of many pieces, and who else has a turn meanwhile."""

import asyncio
from collections.abc import Sequence

import pytest

from serving.http.answer import joined

KIBIBYTE = 1024


async def _body_and_turns(pieces: Sequence[bytes]) -> tuple[bytes, int]:
    num_turns = 0

    async def other() -> None:
        nonlocal num_turns
        while True:
            await asyncio.sleep(0)
            num_turns += 1

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    body = await joined(pieces)
    task.cancel()
    return body, num_turns


@pytest.mark.parametrize(
    ("sizes", "num_turns"),
    [
        ([], 0),
        ([700 * KIBIBYTE], 0),
        ([10] * 10_000, 0),
        ([256 * KIBIBYTE] * 10, 4),
        ([1100 * KIBIBYTE] * 3, 2),
    ],
)
def test_others_have_a_turn_for_each_half_megabyte(sizes: list[int], num_turns: int) -> None:
    pieces = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    assert asyncio.run(_body_and_turns(pieces)) == (b"".join(pieces), num_turns)
