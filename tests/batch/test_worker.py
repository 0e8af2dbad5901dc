"""One engine's share of a job: chunks of which rows are bad, and engines that die."""

import asyncio
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from serving.batch.isolation import Turnstile
from serving.batch.job import Job, plan_job
from serving.batch.keeper import StartEngine
from serving.batch.rows import Chunk, Pdf, Rejected, Row
from serving.batch.tally import Tally
from serving.batch.worker import ChunkWorker
from serving.embedder import Embedder
from serving.errors import EngineDeadError, EngineError, EngineStartError, OutputError
from serving.inputs import PageImage, Text
from serving.settings import BatchSettings
from tests.batch.corpus import made, texts, write_jsonl
from tests.batch.engines import Trouble, start_fake, start_none, troubled
from tests.conftest import Golden
from tests.http.documents import encrypted_pdf, picture_pdf

JobAndChunks = tuple[Job, tuple[Chunk, ...]]
pytestmark = pytest.mark.usefixtures("impatient")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def embed(job: Job, start: StartEngine, *chunks: Chunk) -> list[Tally]:
    """Embed all chunks at once with one worker."""
    job.output.attempts.mkdir(parents=True, exist_ok=True)
    job.output.rejects.mkdir(exist_ok=True)

    async def scenario() -> list[Tally]:
        worker = ChunkWorker(job, start)
        try:
            async with asyncio.timeout(60):
                return await asyncio.gather(*(worker.embed(chunk) for chunk in chunks))
        finally:
            await worker.close()

    return asyncio.run(scenario())


def poisoned(job: JobAndChunks, *positions: int) -> list[Chunk]:
    """The job's chunks, with a text that ends engines in some places of the second."""
    chunks = list(job[1])
    rows = list(chunks[1].rows)
    for position in positions:
        row = rows[position]
        assert isinstance(row, Row)
        rows[position] = Row(row.id, row.where, Text("some poison here"))
    chunks[1] = Chunk(1, tuple(rows))
    return chunks


def test_texts_images_and_pages_come_in_the_order_of_the_rows(
    tmp_path: Path, job: JobAndChunks, golden: Golden, fake_embedder: Embedder
) -> None:
    rows: Sequence[Row | Rejected] = [
        Row("a", "f:1", Text("first")),
        Row("b", "f:2", Pdf(picture_pdf([RED, BLUE, RED]))),
        Rejected("c", "f:3", None, "no content"),
        Row("d", "f:4", PageImage(golden.images[0])),
        Row("e", "f:5", Pdf(encrypted_pdf(password=b"secret"))),
        Row("f", "f:6", PageImage(tmp_path / "none.png")),
        Row("g", "f:7", Pdf(tmp_path / "none.pdf")),
        Row("h", "f:8", PageImage(b"no image")),
        Row("i", "f:9", Text("last")),
    ]
    (tally,) = embed(job[0], start_fake, Chunk(0, tuple(rows)))
    found = made(job[0].output.root)
    assert list(found.embedded) == [
        ("a", None), ("b", 1), ("b", 2), ("b", 3), ("d", None), ("i", None),
    ]  # fmt: skip
    assert {place: reason.split(".")[0][-40:] for place, reason in found.rejected.items()} == {
        ("c", None): "no content",
        ("e", None): "The PDF needs a password",
        ("f", None): found.rejected["f", None].split(".")[0][-40:],
        ("g", None): found.rejected["g", None].split(".")[0][-40:],
        (
            "h",
            None,
        ): "the image is not an image in a format that is read here: PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF"[
            -40:
        ],
    }
    # The path may be cut short.
    assert "cannot be read (No such file" in found.rejected["f", None]
    assert "none.pdf" in found.rejected["g", None]
    assert (tally.rows, tally.embedded, tally.pages, tally.rejected) == (9, 6, 3, 5)
    assert tally.tokens > 0


def test_vectors_are_those_of_the_python_api(job: JobAndChunks, fake_embedder: Embedder) -> None:
    import pyarrow.parquet as pq

    embed(job[0], start_fake, job[1][0])
    got = torch.tensor(pq.read_table(job[0].output.part(0))["embedding"].to_pylist())
    wanted = fake_embedder.encode_text(
        [f"text number {n}" for n in range(8)], task="retrieval", prompt_name="passage"
    )
    assert torch.equal(got, torch.stack(list(wanted)))


def test_a_chunk_that_is_done_is_not_done_again(job: JobAndChunks) -> None:
    first = embed(job[0], start_fake, job[1][0])
    written = job[0].output.part(0).stat().st_mtime_ns
    # Of an engine that does not start, nothing can be asked.
    assert embed(job[0], start_none, job[1][0]) == first
    assert job[0].output.part(0).stat().st_mtime_ns == written


def test_an_engine_that_dies_once_costs_no_row(tmp_path: Path, job: JobAndChunks) -> None:
    start = troubled(Trouble(poison="number 9", once=tmp_path / "died"))
    tallies = embed(job[0], start, *job[1])
    assert (tmp_path / "died").exists()
    assert [tally.embedded for tally in tallies] == [8] * 5
    assert made(job[0].output.root).ids == {f"row-{n}": 1 for n in range(40)}


def test_a_row_that_ends_the_engine_is_rejected_and_no_other(job: JobAndChunks) -> None:
    tallies = embed(job[0], troubled(Trouble(poison="poison")), *poisoned(job, 2, 6))
    assert [tally.rejected for tally in tallies] == [0, 2, 0, 0, 0]
    found = made(job[0].output.root)
    assert found.ids == {f"row-{n}": 1 for n in range(40)}
    assert found.rejected.keys() == {("row-10", None), ("row-14", None)}
    assert "died twice on this row" in found.rejected["row-10", None]


def test_more_poison_than_restarts_does_not_stop_a_job(job: JobAndChunks) -> None:
    positions = (0, 2, 4, 6)
    assert len(positions) > job[0].settings.max_engine_restarts
    tallies = embed(job[0], troubled(Trouble(poison="poison")), *poisoned(job, *positions))
    assert [tally.rejected for tally in tallies] == [0, 4, 0, 0, 0]


def test_an_engine_that_dies_on_one_row_after_the_other_ends_the_job(job: JobAndChunks) -> None:
    with pytest.raises(EngineDeadError, match="5 rows in a row, so it is the engine"):
        embed(job[0], troubled(Trouble(poison="text")), job[1][0])
    assert not job[0].output.part(0).exists()


def test_a_row_without_usable_vectors_is_rejected_at_once(job: JobAndChunks) -> None:
    tallies = embed(job[0], troubled(Trouble(nan="poison")), *poisoned(job, 2, 3, 4, 6))
    assert [tally.rejected for tally in tallies] == [0, 4, 0, 0, 0]
    found = made(job[0].output.root)
    assert found.rejected["row-10", None] == "Its values are NaN."


def test_an_engine_without_usable_vectors_ends_the_job(job: JobAndChunks) -> None:
    with pytest.raises(EngineDeadError, match="no usable vectors for 5 rows in a row"):
        embed(job[0], troubled(Trouble(nan="text")), job[1][0])
    assert not job[0].output.part(0).exists()


def test_an_engine_that_does_not_start_ends_the_job_with_its_own_words(job: JobAndChunks) -> None:
    with pytest.raises(EngineStartError, match="There is no such engine"):
        embed(job[0], start_none, *job[1])


def test_an_engine_that_does_not_start_again_ends_the_job(job: JobAndChunks) -> None:
    num_starts = 0

    async def start(directory: Path, settings: BatchSettings):
        nonlocal num_starts
        num_starts += 1
        if num_starts > 1:
            return await start_none(directory, settings)
        return await troubled(Trouble(poison="text"))(directory, settings)

    with pytest.raises(EngineError, match=r"does not stay up.*There is no such engine"):
        embed(job[0], start, job[1][0])
    assert num_starts == 1 + job[0].settings.max_engine_restarts


def test_marks_of_a_process_that_died_lead_to_the_row(job: JobAndChunks) -> None:
    """As when a decoder crashes: nobody is left to say so."""
    attempts = job[0].output.attempts
    attempts.mkdir(parents=True)
    (attempts / "00000001").write_bytes(b"..")
    (attempts / "00000001-3").write_bytes(b"..")
    tallies = embed(job[0], start_fake, *job[1])
    assert [tally.rejected for tally in tallies] == [0, 1, 0, 0, 0]
    assert made(job[0].output.root).rejected.keys() == {("row-11", None)}


def test_a_full_disk_stops_the_job_and_blames_no_row(job: JobAndChunks) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OutputError, match=r"is full .*run the same command again"):
            embed(job[0], start_fake, job[1][0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert made(job[0].output.root).ids == {}
    assert job[0].output.leftovers() == []


def test_multi_vectors_and_bits_are_written(tmp_path: Path, model: Path) -> None:
    import pyarrow.parquet as pq

    source = write_jsonl(tmp_path / "docs.jsonl", texts(8))
    settings = BatchSettings(vectors="multi", vector_dtype="ubinary", rows_per_file=8)
    job, plan = plan_job(source, model, None, tmp_path / "out", settings)
    embed(job, start_fake, *plan.sections[0].chunks([0]))
    table = pq.read_table(job.output.part(0))
    lengths = [len(vectors) for vectors in table["embedding"].to_pylist()]
    assert lengths == table["num_tokens"].to_pylist()


def test_who_is_alone_is_alone() -> None:
    async def scenario() -> list[str]:
        turnstile, seen = Turnstile(), list[str]()

        async def enter(name: str, *, alone: bool) -> None:
            async with turnstile.alone() if alone else turnstile.together():
                seen.append(f"+{name}")
                for _ in range(3):
                    await asyncio.sleep(0)
                seen.append(f"-{name}")

        await asyncio.gather(
            enter("a", alone=False), enter("b", alone=False), enter("c", alone=True),
            enter("d", alone=False), enter("e", alone=True),
        )  # fmt: skip
        return seen

    assert asyncio.run(scenario()) == ["+a", "+b", "-a", "-b", "+c", "-c", "+d", "-d", "+e", "-e"]
