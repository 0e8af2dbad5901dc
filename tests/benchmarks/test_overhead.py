"""What HTTP is measured against does the same work: the pipeline behind the server, asked for the same texts."""

import asyncio
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from benchmarks.load import instructions
from benchmarks.load.in_process import served
from benchmarks.load.requests import KINDS, Dialect, Inputs, body, vectors
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Outcome, Prompt, Want


def test_both_ways_ask_the_engine_for_the_same(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[Prompt, ...], Want]] = []
    embed = FakeEngine.embed

    async def note(self: FakeEngine, prompts: list[Prompt], want: Want) -> list[Outcome]:
        asked.append((tuple(prompts), want))
        return await embed(self, prompts, want)

    monkeypatch.setattr(FakeEngine, "embed", note)
    checkpoint = merged_float32 / "retrieval"
    (texts,) = Inputs(checkpoint, seed=7).draw(KINDS["text-64"], 1)
    one = body(Dialect.POLYVEC, KINDS["text-64"], texts)

    async def both() -> bytes:
        async with served(checkpoint) as server:
            await server.embed(texts)
            url = f"http://127.0.0.1:{server.port}{one.path}"
            request = Request(url, one.data, {"Content-Type": "application/json"})
            return await asyncio.to_thread(lambda: urlopen(request).read())

    answer = asyncio.run(both())
    direct, over_http = asked
    assert over_http == direct
    assert len(direct[0]) == 64
    found, _ = vectors(Dialect.POLYVEC, KINDS["text-64"], answer)
    assert len(found) == 64


def test_counts_are_read_from_what_callgrind_leaves(tmp_path: Path) -> None:
    for number, name in enumerate(("direct", "http"), start=1):
        (tmp_path / f"counts.{number}").write_text(
            f"# callgrind format\ndesc: Trigger: dump {name}\nsummary: {number}000\nfn=(1)\n"
        )
    (tmp_path / "counts.3").write_text("desc: Trigger: Program termination\nsummary: 7\n")
    assert instructions.read_counts(tmp_path) == {"direct": 1000, "http": 2000}
