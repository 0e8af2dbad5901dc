"""Places are taken in turns: by callers, not in the order of arrival."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving import QueueFullError, ServerSettings
from serving.admission import Admission
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Want
from serving.http.fetch import Fetcher
from serving.inputs import Input, Text
from serving.pdf import PdfRenderer
from serving.pipeline import Pipeline, Prepared, Request
from serving.places import Places
from serving.preparing import pieces
from serving.prompts import Prompter
from serving.turns import Flow, TurnQueue

SINGLE = Request(want=Want(single=True))


class Work:
    """Notes who worked, one after the other."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def want(self, places: Places, caller: str, call: str = "") -> None:
        async with places.taken(Flow(caller, call)):
            await asyncio.sleep(0)
            self.done.append(caller)


def test_a_caller_with_much_to_do_does_not_hold_another_up() -> None:
    async def test() -> None:
        places, work = Places(1), Work()
        many = [asyncio.create_task(work.want(places, "many", str(n))) for n in range(20)]
        await asyncio.sleep(0)
        await work.want(places, "few")
        assert work.done.index("few") <= 2
        await asyncio.gather(*many)
        assert work.done.count("many") == 20

    asyncio.run(test())


def test_there_are_never_more_than_there_are_places_and_all_can_be_waited_for() -> None:
    async def test() -> None:
        places, inside, most = Places(3), 0, 0

        async def work(number: int) -> None:
            nonlocal inside, most
            async with places.taken(Flow(f"caller {number % 4}", str(number))):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        tasks = [asyncio.create_task(work(number)) for number in range(40)]
        await asyncio.sleep(0.003)
        async with places.all_taken():
            assert inside == 0
            assert not all(task.done() for task in tasks)
        await asyncio.gather(*tasks)
        assert most == 3

    asyncio.run(test())


def test_pieces_are_bounded_in_characters_and_number_and_leave_nothing_out() -> None:
    lengths = [300_000, 1, *[1000] * 700, 262_144, 0, 5]
    cut = pieces(lengths, lambda length: length)
    assert [one for piece in cut for one in lengths[piece]] == lengths
    assert cut[0] == slice(0, 1)
    for piece in cut[1:]:
        assert sum(lengths[piece]) <= 262_144
        assert len(lengths[piece]) <= 256
    assert pieces([], lambda length: length) == []


def prepared_by(places: Places, directory: Path, max_tokens: int = 10**9) -> Pipeline:
    admission = Admission(max_tokens=max_tokens)
    turns = TurnQueue(max_running_tokens=100, admission=admission)
    return Pipeline(FakeEngine(directory), Prompter.load(directory), turns=turns, preparing=places)


def texts(num_chars: int, number: int) -> list[Text]:
    return [Text("many words of text " * (num_chars // 19)) for _ in range(number)]


def test_a_large_call_is_prepared_in_pieces_and_others_between_them(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    in_thread = Pipeline._prepare

    def noted(self: Pipeline, inputs: Sequence[Input], request: Request) -> Prepared:
        prepared = in_thread(self, inputs, request)
        ended.append("large" if len(inputs) == 2 else "middle")
        return prepared

    async def test() -> None:
        pipeline = prepared_by(Places(1), merged_float32 / "code")
        # Two to a piece.
        large = texts(120_000, 16)
        whole = asyncio.create_task(pipeline.prepare(large, SINGLE, Flow("a", "1")))
        await asyncio.sleep(0)
        middle = await pipeline.prepare(texts(6_000, 1), SINGLE, Flow("b", "2"))
        assert ended.index("middle") <= 2
        prepared = await whole
        assert (len(ended), len(prepared.prompts)) == (9, 16)
        alone = await pipeline.prepare(large, SINGLE)
        assert (prepared.prompts, prepared.num_tokens) == (alone.prompts, alone.num_tokens)
        assert middle.prompts == (await pipeline.prepare(texts(6_000, 1), SINGLE)).prompts

    monkeypatch.setattr(Pipeline, "_prepare", noted)
    asyncio.run(test())


def test_a_call_for_which_there_is_no_room_is_not_tokenised_to_its_end(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_pieces = 0
    in_thread = Pipeline._prepare

    def counted(self: Pipeline, inputs: Sequence[Input], request: Request) -> Prepared:
        nonlocal num_pieces
        num_pieces += 1
        return in_thread(self, inputs, request)

    async def test() -> None:
        pipeline = prepared_by(Places(1), merged_float32 / "code", max_tokens=30_000)
        assert pipeline._turns is not None
        with pipeline._turns.admission.place("a", 20_000), pytest.raises(QueueFullError):
            await pipeline.prepare(texts(120_000, 40), SINGLE, Flow("a", "1"))
        assert num_pieces == 1

    monkeypatch.setattr(Pipeline, "_prepare", counted)
    asyncio.run(test())


def test_late_chunks_past_the_end_of_their_sequence_are_not_tokenised(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = Prompter.load(merged_float32 / "code")
    chunks = texts(100_000, 30)
    encoded: list[int] = []
    encode = prompter._encode

    def counted(some: list[str]) -> list[list[int]]:
        encoded.append(len(some))
        return encode(some)

    monkeypatch.setattr(prompter, "_encode", counted)
    prompt = prompter.chunked_prompt(chunks, prompt_name=None, enough=100)
    assert encoded == [2]
    assert prompt.spans is not None
    assert (len(prompt.spans), prompt.spans[-1].stop) == (2, len(prompt.token_ids))
    assert len(prompter.chunked_prompt(chunks[:5], prompt_name=None).spans or ()) == 5


Ask = Callable[[Flow], Awaitable[object]]


async def second_of_many(ask: Ask, started: list[str]) -> None:
    """One caller asks for twelve, another for one: whose turn that is."""
    many = [asyncio.create_task(_ask(ask, Flow("many", str(n)))) for n in range(12)]
    await asyncio.sleep(0.01)
    await _ask(ask, Flow("few", "0"))
    await asyncio.gather(*many)
    assert len(started) == 13


async def _ask(ask: Ask, flow: Flow) -> None:
    await ask(flow)


def test_fetches_and_documents_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    rendered: list[bytes] = []

    async def follow(_: Fetcher, target: Any, max_bytes: int) -> bytes:
        fetched.append(target.host)
        await asyncio.sleep(0.02)
        return b""

    async def render(_: PdfRenderer, data: bytes, job: Any) -> list[bytes]:
        rendered.append(data)
        await asyncio.sleep(0.02)
        return []

    async def test() -> None:
        settings = ServerSettings(max_fetches=2, pdf_processes=1)
        fetcher, renderer = Fetcher(settings), PdfRenderer(settings)
        await second_of_many(
            lambda flow: fetcher.fetch(f"http://{flow.caller}.test/", max_bytes=1, flow=flow),
            fetched,
        )
        assert fetched.index("few.test") <= 3
        await second_of_many(
            lambda flow: renderer.render(
                b"%PDF-" + flow.caller.encode(), max_page_pixels=1, flow=flow
            ),
            rendered,  # type: ignore[arg-type]
        )
        assert rendered.index(b"%PDF-few") <= 2
        await fetcher.close()
        await renderer.close()

    monkeypatch.setattr(Fetcher, "_follow", follow)
    monkeypatch.setattr(PdfRenderer, "_render", render)
    asyncio.run(test())
