"""PDFs to images of their pages, each document in a process of its own.

The library that reads PDFs is native code, and its input comes from strangers: whatever it does there
(crash, hang, eat memory, or obey the document) must end with that one process. So a process sees one
document, gets neither the server's environment nor its files, and answers in a protocol of numbers and
bytes that is checked here; a pool of workers that answer in pickles, such as anyio's, would let a
document that takes over its worker into the server and into the next caller's document.

Knows nothing of how pages are drawn; serving/pdf_worker.py does.
"""

import asyncio
import logging
import math
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import assert_never

from serving.errors import InputError, StoppingError
from serving.pdf_worker import (
    HEADER,
    MAX_ASPECT_RATIO,
    MAX_PAGE_POINTS,
    POINTS_PER_INCH,
    Fault,
    Job,
    Kind,
)
from serving.places import NOBODY, Places
from serving.settings.documents import DocumentSettings
from serving.turns import Flow

_log = logging.getLogger(__name__)

_WORKER = Path(__file__).with_name("pdf_worker.py")
_MAGIC = b"%PDF-"
_MAGIC_WITHIN_BYTES = 1024

_MAX_WORKER_MEMORY_BYTES = 2 * 1024**3
# All pages of one document, as PNG: a page of noise takes megabytes, and a small document may hold many.
_MAX_RENDERED_BYTES = 512 * 1024 * 1024
_PIPE_BUFFER_BYTES = 1024 * 1024
_REAP_TIMEOUT_S = 5.0


class PdfRenderer:
    """Renders PDFs within `settings`; one for the whole process."""

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings
        self._places = Places(settings.pdf_processes)
        self._running: set[Process] = set()
        self._closed = False

    async def render(
        self, data: bytes, *, max_page_pixels: int, flow: Flow = NOBODY
    ) -> list[bytes]:
        """One lossless RGB PNG a page, in order. Waiting for a process is not in `pdf_timeout_s`.

        Args:
            data: the PDF.
            max_page_pixels: pixels that are of use to the model; larger pages are scaled down to it.
            flow: whose turn this is.

        Raises:
            InputError: it is no PDF, is encrypted or damaged, or has more than may be rendered.
            StoppingError: this is being closed.
        """
        if len(data) > self._settings.max_pdf_bytes:
            raise InputError(
                f"The PDF has {len(data)} bytes; at most {self._settings.max_pdf_bytes} are read."
            )
        if _MAGIC not in data[:_MAGIC_WITHIN_BYTES]:
            raise InputError("This is not a PDF; a PDF starts with %PDF-.")
        job = Job(
            dpi=self._settings.pdf_dpi,
            max_pages=self._settings.max_pdf_pages,
            max_page_pixels=min(self._settings.max_decoded_pixels, max_page_pixels),
            max_memory_bytes=_MAX_WORKER_MEMORY_BYTES,
            max_cpu_s=math.ceil(self._settings.pdf_timeout_s) + 1,
        )
        async with self._places.taken(flow):
            if self._closed:
                raise StoppingError()
            try:
                async with asyncio.timeout(self._settings.pdf_timeout_s):
                    return await self._render(data, job)
            except TimeoutError as error:
                raise InputError(
                    f"Rendering the PDF took more than {self._settings.pdf_timeout_s:g} s. "
                    "Split it, or send its pages as images."
                ) from error
            except (EOFError, ConnectionError, ValueError) as error:
                if self._closed:
                    raise StoppingError() from error
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    "The PDF could not be rendered. Send its pages as images."
                ) from error

    async def close(self) -> None:
        """End what is being rendered and take no more; both raise `StoppingError`. No process is left."""
        self._closed = True
        for process in self._running:
            _kill(process)
        async with self._places.all_taken():
            pass

    async def _render(self, data: bytes, job: Job) -> list[bytes]:
        process = await _start(job)
        self._running.add(process)
        try:
            return await _exchange(process, data, self._settings)
        except (EOFError, ConnectionError, ValueError) as error:
            if not isinstance(error, InputError) and not self._closed:
                _log.warning("A PDF's process broke off (%s).", type(error).__name__)
            raise
        finally:
            _kill(process)
            self._running.discard(process)
            await _reap(process)


async def _start(job: Job) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_WORKER),
        *job.arguments(),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # what it prints may quote the document
        limit=_PIPE_BUFFER_BYTES,
        cwd="/",
        env=_environment(),
        # A signal to the server's group must not end what was accepted before it.
        start_new_session=True,
    )


async def _exchange(process: Process, data: bytes, settings: DocumentSettings) -> list[bytes]:
    """Send the document, and take its pages.

    Raises:
        InputError: the process says what is wrong with the document.
        EOFError: it ended too soon.
        ConnectionError: it did not take the document.
        ValueError: what it says breaks the protocol.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(data)
    await process.stdin.drain()
    process.stdin.close()
    pages: list[bytes] = []
    left_bytes = _MAX_RENDERED_BYTES
    while True:
        kind, first, second = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
        match Kind(kind):
            case Kind.PAGE:
                if first != len(pages) + 1 or first > settings.max_pdf_pages:
                    raise ValueError(first)
                left_bytes -= second
                if left_bytes < 0:
                    raise InputError(
                        f"The first {first} pages of the PDF come to more than "
                        f"{_MAX_RENDERED_BYTES} bytes as images. Split it."
                    )
                pages.append(await process.stdout.readexactly(second))
            case Kind.FAULT:
                raise InputError(_reason(Fault(first), second, settings))
            case Kind.DONE:
                if not pages:
                    raise ValueError(kind)
                return pages
            case other:
                assert_never(other)


def _reason(fault: Fault, number: int, settings: DocumentSettings) -> str:
    match fault:
        case Fault.DAMAGED:
            return "The PDF cannot be read; it is damaged or truncated."
        case Fault.ENCRYPTED:
            return "The PDF needs a password. Remove its encryption first."
        case Fault.NO_PAGES:
            return "The PDF has no pages."
        case Fault.TOO_MANY_PAGES:
            return (
                f"The PDF has {number} pages; at most {settings.max_pdf_pages} are read. Split it."
            )
        case Fault.PAGE_DAMAGED:
            return f"Page {number} of the PDF cannot be rendered; it is damaged."
        case Fault.PAGE_WITHOUT_SIZE:
            return f"Page {number} of the PDF has no size."
        case Fault.PAGE_TOO_LARGE:
            inches = MAX_PAGE_POINTS / POINTS_PER_INCH
            return f"Page {number} of the PDF has an edge of more than {inches:g} inches."
        case Fault.PAGE_TOO_NARROW:
            return (
                f"Page {number} of the PDF has an aspect ratio of more than {MAX_ASPECT_RATIO:g}. "
                "Crop it or cut it into pieces."
            )
        case Fault.OUT_OF_MEMORY:
            where = f"Page {number} of the PDF" if number else "The PDF"
            return f"{where} takes too much memory to render. Send its pages as images."
        case _:
            assert_never(fault)


def _environment() -> dict[str, str]:
    """Nothing of ours, such as keys and tokens; some installations of Python need their libraries."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _kill(process: Process) -> None:
    # Also when it has ended: it leads a session, and something it started may be left there.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _reap(process: Process) -> None:
    """Wait for a killed process, and let go of its pipes."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # Until its output is read to the end, asyncio does not say that a process has ended. The time is
    # for one that was taken over, and left somebody behind who holds the other end.
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP_TIMEOUT_S):
            await process.stdout.read()
            await process.wait()
