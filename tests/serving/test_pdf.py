import asyncio
import io
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving import pdf
from serving.errors import InputError, StoppingError
from serving.pdf import PdfRenderer
from serving.pdf_worker import HEADER, Fault, Kind, choose_scale
from serving.settings.server import ServerSettings
from tests.http.documents import A4, encrypted_pdf, picture_pdf, slow_pdf, written_pdf

MAX_PAGE_PIXELS = 4_000_000
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SOUND = picture_pdf([RED])
DONE = HEADER.pack(Kind.DONE, 0, 0)

Run = Callable[[Awaitable[None]], None]


def images(pages: list[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(page)) for page in pages]


def render(data: bytes, *, max_page_pixels: int = MAX_PAGE_PIXELS, **given: Any) -> list[bytes]:
    async def test() -> list[bytes]:
        renderer = PdfRenderer(ServerSettings(**given))
        try:
            return await renderer.render(data, max_page_pixels=max_page_pixels)
        finally:
            await renderer.close()
            assert workers() == []

    return asyncio.run(test())


def refusal(data: bytes, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        render(data, **given)
    return caught.value.reason


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if any("pdf_worker" in part for part in child.cmdline()):
                found.append(child)
    return found


async def one_worker() -> psutil.Process:
    """The running process, once it has taken its limits and so left everything else behind."""
    while True:
        for worker in workers():
            if worker.rlimit(psutil.RLIMIT_CORE) == (0, 0) and worker.cpu_times().user > 0.2:
                return worker
        await asyncio.sleep(0.01)


# Pages


def test_pages_come_in_order_as_lossless_rgb() -> None:
    pages = images(render(picture_pdf([RED, GREEN, BLUE]), pdf_dpi=72))
    assert [page.format for page in pages] == ["PNG"] * 3
    assert [page.mode for page in pages] == ["RGB"] * 3
    assert [page.size for page in pages] == [(90, 60)] * 3
    for page, color in zip(pages, (RED, GREEN, BLUE), strict=True):
        for found, made in zip(page.getpixel((45, 30)), color, strict=True):
            assert abs(found - made) <= 2  # the picture in the PDF is a JPEG


def test_what_a_page_draws_is_there_on_a_white_ground() -> None:
    data = written_pdf(["0 0 100 100"], content=b"0 0 1 rg 0 0 50 50 re f")
    (page,) = images(render(data, pdf_dpi=72))
    assert page.getpixel((10, 90)) == BLUE
    assert page.getpixel((90, 10)) == (255, 255, 255)


@pytest.mark.parametrize(("dpi", "size"), [(72, A4), (144, (1190, 1684)), (36, (298, 421))])
def test_pages_are_rendered_at_the_resolution_that_is_set(dpi: int, size: tuple[int, int]) -> None:
    (page,) = images(render(written_pdf(["0 0 595 842"]), pdf_dpi=dpi))
    assert page.size == size


@pytest.mark.parametrize(
    "bounds", [{"max_page_pixels": 10_000}, {"max_decoded_pixels": 10_000}], ids=["page", "decoded"]
)
def test_pages_with_too_many_pixels_are_scaled_down(bounds: dict[str, int]) -> None:
    (page,) = images(render(written_pdf(["0 0 14400 7200"]), **bounds))
    width, height = page.size
    assert 9_000 < width * height <= 10_000
    assert abs(width / height - 2) < 0.05


@given(
    width=st.floats(0.1, 14400),
    aspect=st.floats(1 / 200, 200),
    dpi=st.integers(36, 600),
    max_pixels=st.integers(1000, 10**8),
)
def test_no_page_has_more_pixels_than_allowed(
    width: float, aspect: float, dpi: int, max_pixels: int
) -> None:
    height = width / aspect
    scale = choose_scale(width, height, dpi, max_pixels)
    assert 0 < scale <= dpi / 72
    assert -(-width * scale // 1) * -(-height * scale // 1) <= max_pixels


def test_a_pdf_may_start_after_other_bytes() -> None:
    assert len(render(b"x" * 1000 + SOUND)) == 1


def test_encryption_without_a_password_is_no_obstacle() -> None:
    assert len(render(encrypted_pdf(password=b""))) == 1


# Documents that are refused


REFUSED = {
    "text": (b"Just text.", "not a PDF"),
    "nothing": (b"", "not a PDF"),
    "late start": (b"x" * 1024 + SOUND, "not a PDF"),
    "only a start": (b"%PDF-1.7 and nothing more", "damaged or truncated"),
    "half": (SOUND[: len(SOUND) // 2], "damaged or truncated"),
    "no pages": (written_pdf([]), "damaged or truncated"),
    "password": (encrypted_pdf(password=b"secret"), "password"),
    "lost page": (written_pdf(["0 0 9 9"] * 2, kids="4 0 R 99 0 R"), "Page 2 of the PDF cannot be"),
    "large page": (written_pdf(["0 0 9 9", "0 0 20000 9"]), "Page 2 of the PDF has an edge"),
    "narrow page": (written_pdf(["0 0 10000 10"]), "Page 1 of the PDF has an aspect ratio"),
    "many pages": (written_pdf(["0 0 9 9"] * 10_000), "10000 pages; at most 256"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_cannot_be_rendered_says_why(name: str) -> None:
    data, why = REFUSED[name]
    assert why in refusal(data)


def test_bytes_and_pages_are_bounded_by_the_settings() -> None:
    assert f"at most {len(SOUND) - 1}" in refusal(SOUND, max_pdf_bytes=len(SOUND) - 1)
    assert "3 pages; at most 2" in refusal(picture_pdf([RED, GREEN, BLUE]), max_pdf_pages=2)


def test_the_images_of_all_pages_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_MAX_RENDERED_BYTES", 500)
    assert "come to more than 500 bytes" in refusal(picture_pdf([RED, GREEN, BLUE]))


def test_a_document_that_wants_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written_pdf(["0 0 7200 7200"])
    monkeypatch.setattr(pdf, "_MAX_WORKER_MEMORY_BYTES", 100 * 1024 * 1024)
    assert "Page 1" in refusal(data, max_page_pixels=60_000_000)
    assert len(render(data, max_page_pixels=1_000_000)) == 1


# The process


def test_its_process_has_no_secrets_little_room_and_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")

    async def test() -> None:
        renderer = PdfRenderer(ServerSettings())
        task = asyncio.ensure_future(renderer.render(slow_pdf(), max_page_pixels=MAX_PAGE_PIXELS))
        worker = await one_worker()
        assert "HF_TOKEN" not in worker.environ()
        assert os.getsid(worker.pid) == worker.pid
        assert worker.cwd() == "/"
        for limit, most in (
            (psutil.RLIMIT_NPROC, 0),
            (psutil.RLIMIT_FSIZE, 0),
            (psutil.RLIMIT_NOFILE, 64),
            (psutil.RLIMIT_CPU, 61),
            (psutil.RLIMIT_AS, 4 * 1024**3),
        ):
            assert max(worker.rlimit(limit)) <= most
        libraries = {Path(region.path).name for region in worker.memory_maps()}
        assert any("pdfium" in library for library in libraries)
        assert not any("torch" in library for library in libraries)
        await renderer.close()
        with pytest.raises(StoppingError):
            await task

    asyncio.run(test())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_process_that_is_killed_costs_its_document_and_nothing_else(run: Run) -> None:
    async def test() -> None:
        renderer = PdfRenderer(ServerSettings(pdf_processes=1))
        task = asyncio.ensure_future(renderer.render(slow_pdf(), max_page_pixels=MAX_PAGE_PIXELS))
        (await one_worker()).send_signal(signal.SIGKILL)
        with pytest.raises(InputError, match="could not be rendered"):
            await task
        assert len(await renderer.render(SOUND, max_page_pixels=MAX_PAGE_PIXELS)) == 1
        await renderer.close()

    run(test())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_closing_ends_what_is_rendered_and_what_waits_and_leaves_no_process(run: Run) -> None:
    async def test() -> None:
        renderer = PdfRenderer(ServerSettings(pdf_processes=1))
        tasks = [
            asyncio.ensure_future(renderer.render(data, max_page_pixels=MAX_PAGE_PIXELS))
            for data in (slow_pdf(), SOUND)
        ]
        await one_worker()
        await renderer.close()
        assert workers() == []
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, StoppingError) for result in results] == [True, True]
        with pytest.raises(StoppingError):
            await renderer.render(SOUND, max_page_pixels=MAX_PAGE_PIXELS)

    run(test())


def test_a_document_that_takes_too_long_is_given_up() -> None:
    assert "more than 0.1 s" in refusal(slow_pdf(), pdf_timeout_s=0.1)


def test_a_cancelled_call_ends_its_process() -> None:
    async def test() -> None:
        renderer = PdfRenderer(ServerSettings())
        task = asyncio.ensure_future(renderer.render(slow_pdf(), max_page_pixels=MAX_PAGE_PIXELS))
        await one_worker()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert workers() == []

    asyncio.run(test())


def test_no_more_processes_run_than_are_set() -> None:
    async def test() -> None:
        renderer = PdfRenderer(ServerSettings(pdf_processes=1))
        rendering = asyncio.gather(
            *(renderer.render(SOUND, max_page_pixels=MAX_PAGE_PIXELS) for _ in range(3))
        )
        seen: list[int] = []
        while not rendering.done():
            seen.append(len(workers()))
            await asyncio.sleep(0.005)
        assert [len(pages) for pages in await rendering] == [1, 1, 1]
        assert max(seen) == 1

    asyncio.run(test())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage that is no header",
        HEADER.pack(9, 0, 0),
        HEADER.pack(Kind.FAULT, 99, 0),
        DONE,
        HEADER.pack(Kind.PAGE, 2, 1) + b"x" + DONE,
        HEADER.pack(Kind.PAGE, 1, 100) + b"short",
        HEADER.pack(Kind.PAGE, 1, 1) + b"x" + HEADER.pack(Kind.PAGE, 1, 1) + b"x" + DONE,
        b"".join(HEADER.pack(Kind.PAGE, page, 1) + b"x" for page in range(1, 9)) + DONE,
    ],
    ids=lambda said: said.hex()[:36] or "nothing",
)
def test_a_process_that_was_taken_over_can_only_fail(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "taken_over.py"
    script.write_text(f"import sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write({said!r})")
    monkeypatch.setattr(pdf, "_WORKER", script)
    assert "could not be rendered" in refusal(SOUND, max_pdf_pages=7)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_words_that_name_its_page(fault: Fault) -> None:
    message = pdf._reason(fault, 7, ServerSettings())
    assert message.endswith(".")
    names_a_page = fault.name.startswith("PAGE_") or fault is Fault.OUT_OF_MEMORY
    assert ("Page 7" in message) == names_a_page
