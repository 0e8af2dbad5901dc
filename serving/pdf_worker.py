"""What runs in the process that renders one PDF: bytes on stdin, pages as PNG on stdout.

Run as a file, `python -I pdf_worker.py ...`, and importing nothing of ours: importing the package would
bring torch, and take seconds. Knows no server, no settings and no words for people; the other side
turns `Fault` into messages, so that nothing a document makes this process say reaches anybody.

The protocol is a header, then for a page its bytes:

    kind   uint8    `Kind`
    first  uint32   a page's number from 1, or the `Fault`
    second uint32   a page's number of bytes, or the fault's page or count; 0 when there is none
"""

import contextlib
import enum
import io
import math
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pypdfium2  # type: ignore[import-untyped]

HEADER = struct.Struct(">BII")
POINTS_PER_INCH = 72.0

# PDF itself allows pages of up to 200 inches.
MAX_PAGE_POINTS = 14400.0
MAX_ASPECT_RATIO = 200.0

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_MAX_OPEN_FILES = 64


class Kind(enum.IntEnum):
    """What a header announces."""

    PAGE = 1
    FAULT = 2
    DONE = 3


class Fault(enum.IntEnum):
    """Why there are no (more) pages."""

    DAMAGED = 1
    ENCRYPTED = 2
    NO_PAGES = 3
    TOO_MANY_PAGES = 4
    PAGE_DAMAGED = 5
    PAGE_WITHOUT_SIZE = 6
    PAGE_TOO_LARGE = 7
    PAGE_TOO_NARROW = 8
    OUT_OF_MEMORY = 9


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, and with how much; given as arguments in this order."""

    dpi: int
    max_pages: int
    max_page_pixels: int
    max_memory_bytes: int
    max_cpu_s: int

    def arguments(self) -> list[str]:
        """The arguments that `parse` reads."""
        numbers = (
            self.dpi,
            self.max_pages,
            self.max_page_pixels,
            self.max_memory_bytes,
            self.max_cpu_s,
        )
        return [str(number) for number in numbers]

    @classmethod
    def parse(cls, arguments: list[str]) -> "Job":
        """Read what `arguments` wrote."""
        return cls(*(int(argument) for argument in arguments))


class DocumentFaultError(Exception):
    """The document, or one of its pages, cannot be rendered."""

    def __init__(self, fault: Fault, number: int = 0) -> None:
        super().__init__(fault, number)
        self.fault = fault
        self.number = number


def main(arguments: list[str]) -> None:
    """Render the document on stdin."""
    job = Job.parse(arguments)
    # Whatever else prints must not be taken for pages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Imported before the limits, which forbid what their threads and libraries may need.
    import PIL.PngImagePlugin
    import pypdfium2

    del PIL, pypdfium2
    _limit(job)
    try:
        _render_all(sys.stdin.buffer.read(), job, out)
    except DocumentFaultError as error:
        out.write(HEADER.pack(Kind.FAULT, error.fault, error.number))
    else:
        out.write(HEADER.pack(Kind.DONE, 0, 0))
    out.flush()
    # Nothing is left to tidy up, and tearing down a library full of hostile input may hang.
    os._exit(0)


def _limit(job: Job) -> None:
    """Take from this process what a document does not need."""
    if sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(OSError):  # Linux only: out of memory, kill this and not the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    limits = [
        (resource.RLIMIT_CPU, job.max_cpu_s),  # ends it also when nobody is left to do so
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
    ]
    if sys.platform == "linux":
        num_pages = int(Path("/proc/self/statm").read_text().split()[0])
        in_use_bytes = num_pages * resource.getpagesize()
        limits.append((resource.RLIMIT_AS, in_use_bytes + job.max_memory_bytes))
    for kind, limit in limits:
        _, hard = resource.getrlimit(kind)
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))


def _render_all(data: bytes, job: Job, out: BinaryIO) -> None:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
        # Filled-in forms are only drawn once this was called, before the first page.
        document.init_forms()
        num_pages = len(document)
    except pypdfium2.PdfiumError as error:
        encrypted = error.err_code == _PASSWORD_ERROR
        raise DocumentFaultError(Fault.ENCRYPTED if encrypted else Fault.DAMAGED) from error
    except MemoryError as error:
        raise DocumentFaultError(Fault.OUT_OF_MEMORY) from error
    if num_pages < 1:
        raise DocumentFaultError(Fault.NO_PAGES)
    if num_pages > job.max_pages:
        raise DocumentFaultError(Fault.TOO_MANY_PAGES, num_pages)
    for index in range(num_pages):
        try:
            png = _render_page(document, index, job)
        except pypdfium2.PdfiumError as error:
            raise DocumentFaultError(Fault.PAGE_DAMAGED, index + 1) from error
        except MemoryError as error:
            raise DocumentFaultError(Fault.OUT_OF_MEMORY, index + 1) from error
        out.write(HEADER.pack(Kind.PAGE, index + 1, len(png)))
        out.write(png)
        out.flush()


def _render_page(document: "pypdfium2.PdfDocument", index: int, job: Job) -> bytes:
    page = document[index]
    try:
        width, height = page.get_size()
        _check_size(width, height, index + 1)
        scale = choose_scale(width, height, job.dpi, job.max_page_pixels)
        bitmap = page.render(scale=scale, rev_byteorder=True)
        try:
            png = io.BytesIO()
            # Level 1 is several times faster than the default, and a little larger.
            bitmap.to_pil().convert("RGB").save(png, "PNG", compress_level=1)
            return png.getvalue()
        finally:
            bitmap.close()
    finally:
        page.close()


def _check_size(width: float, height: float, number: int) -> None:
    if not (math.isfinite(width) and math.isfinite(height)) or min(width, height) <= 0:
        raise DocumentFaultError(Fault.PAGE_WITHOUT_SIZE, number)
    if max(width, height) > MAX_PAGE_POINTS:
        raise DocumentFaultError(Fault.PAGE_TOO_LARGE, number)
    if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        raise DocumentFaultError(Fault.PAGE_TOO_NARROW, number)


def choose_scale(width: float, height: float, dpi: int, max_pixels: int) -> float:
    """Pixels per point: as `dpi` says, less when the page would have more than `max_pixels`.

    The renderer rounds both edges up to whole pixels, and the bound holds after that.
    """
    scale = dpi / POINTS_PER_INCH
    if math.ceil(width * scale) * math.ceil(height * scale) <= max_pixels:
        return scale
    # (w s + 1) (h s + 1) = max, solved for s.
    edges = width + height
    area = width * height
    return (math.sqrt(edges * edges + 4 * area * (max_pixels - 1)) - edges) / (2 * area)


if __name__ == "__main__":
    main(sys.argv[1:])
