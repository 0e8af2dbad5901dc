"""PDFs that are bombs, traps, mazes, or broken. The server of these tests takes 256 KiB and 16 pages."""

import json
import zlib
from collections.abc import Callable, Iterator

from tests.http.documents import A4, encrypted_pdf, picture_pdf, written_pdf
from tests.http.hostile.case import MARK, Case, Http, in_base64

PAGE = "/Type /Page /Parent 2 0 R /MediaBox [0 0 90 90]"


def cases() -> Iterator[Case]:
    for name, make in refused().items():
        yield sent(name, 422, make)
    for name, make in taken().items():
        yield sent(name, 200, make)


def sent(name: str, status: int, make: Callable[[], bytes]) -> Case:
    def body() -> bytes:
        document = {"model": "jina-embeddings-v4", "input": {"pdf": in_base64(make())}}
        return json.dumps(document).encode()

    return Case(f"pdf: {name}", Http(body), status)


def of_objects(*objects: str | bytes, trailer: str = "/Root 1 0 R") -> bytes:
    """A PDF of these objects, numbered from 1."""
    file = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, given in enumerate(objects, start=1):
        offsets.append(len(file))
        body = given.encode() if isinstance(given, str) else given
        file += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = f"trailer\n<< /Size {len(objects) + 1} {trailer} >>\n"
    return bytes(file + head.encode() + b"startxref\n%d\n%%%%EOF\n" % start)


def stream(data: bytes, *, filters: str) -> bytes:
    return b"<< /Length %d /Filter %b >>\nstream\n%b\nendstream" % (
        len(data),
        filters.encode(),
        data,
    )


CATALOG = "<< /Type /Catalog /Pages 2 0 R >>"
ONE_PAGE = "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"


def refused() -> dict[str, Callable[[], bytes]]:
    return {
        "only its first line": lambda: b"%PDF-1.7\n" + MARK.encode(),
        "no PDF": MARK.encode,
        "cut in half": lambda: (whole := picture_pdf([(1, 2, 3)]))[: len(whole) // 2],
        "with a password": lambda: encrypted_pdf(password=b"a"),
        "ten thousand pages": lambda: of_objects(
            CATALOG,
            f"<< /Type /Pages /Kids [{' '.join(['3 0 R'] * 10_000)}] /Count 10000 >>",
            f"<< {PAGE} >>",
        ),
        "pages that are their own parents": lambda: of_objects(
            CATALOG, "<< /Type /Pages /Kids [2 0 R] /Count 1 >>"
        ),
        "a catalog that is missing": lambda: of_objects(CATALOG, trailer="/Root 9 0 R"),
        "a page of 2,000 inches": lambda: written_pdf(["0 0 144000 144000"]),
        "a page of no width": lambda: written_pdf(["0 0 0 500"]).replace(
            b"0 0 0 500", b"0 0 1 999"
        ),
        "257 KiB": lambda: picture_pdf([(1, 2, 3)]) + b"\0" * (257 << 10),
    }


def taken() -> dict[str, Callable[[], bytes]]:
    bomb = zlib.compress(zlib.compress(b" " * (256 << 20), 9), 9)
    action = f"/OpenAction << /S /JavaScript /JS (app.alert\\('{MARK}'\\)) >>"
    launch = f"/OpenAction << /S /Launch /F ({MARK}.sh) >>"
    return {
        "a page": lambda: written_pdf([" ".join(map(str, (0, 0, *A4)))]),
        "a stream of 256 MB": lambda: of_objects(
            CATALOG,
            ONE_PAGE,
            f"<< {PAGE} /Contents 4 0 R >>",
            stream(bomb, filters="[/FlateDecode /FlateDecode]"),
        ),
        "a count that lies": lambda: of_objects(
            CATALOG, "<< /Type /Pages /Kids [3 0 R] /Count 2147483647 >>", f"<< {PAGE} >>"
        ),
        "a script": lambda: of_objects(
            f"<< /Type /Catalog /Pages 2 0 R {action} >>", ONE_PAGE, f"<< {PAGE} >>"
        ),
        "a program to start": lambda: of_objects(
            f"<< /Type /Catalog /Pages 2 0 R {launch} >>", ONE_PAGE, f"<< {PAGE} >>"
        ),
        "a form that draws itself": lambda: of_objects(
            CATALOG,
            ONE_PAGE,
            f"<< {PAGE} /Contents 4 0 R /Resources << /XObject << /A 5 0 R >> >> >>",
            "<< /Length 5 >>\nstream\n/A Do\nendstream",
            "<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Length 5 /Resources << /XObject "
            "<< /A 5 0 R >> >> >>\nstream\n/A Do\nendstream",
        ),
        "a stack without end": lambda: written_pdf(["0 0 90 90"], content=b"q " * 60_000),
        "junk before and after": lambda: b"\0" * 500 + picture_pdf([(1, 2, 3)]) + b"\0" * 500,
    }
