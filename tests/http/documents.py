"""PDFs made in the test: of pictures, or written by hand, sound and not."""

import hashlib
import io
from collections.abc import Sequence

from PIL import Image

A4 = (595, 842)
_PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def picture_pdf(
    colors: Sequence[tuple[int, int, int]], *, size: tuple[int, int] = (90, 60)
) -> bytes:
    """One page a color, filled with it; a pixel is a point."""
    pages = [Image.new("RGB", size, color) for color in colors]
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:], resolution=72, quality=100)
    return file.getvalue()


def written_pdf(
    media_boxes: Sequence[str],
    *,
    content: bytes = b"",
    kids: str | None = None,
    trailer: str = "",
) -> bytes:
    """A PDF with a page for each media box, all drawing `content`; `kids` replaces the list of pages."""
    numbers = range(4, 4 + len(media_boxes))
    listed = " ".join(f"{number} 0 R" for number in numbers) if kids is None else kids
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{listed}] /Count {len(media_boxes)} >>".encode(),
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
    ]
    objects += [
        f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents 3 0 R >>".encode()
        for box in media_boxes
    ]
    file = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    return bytes(file + head.encode() + b"startxref\n%d\n%%%%EOF\n" % start)


def encrypted_pdf(*, password: bytes) -> bytes:
    """A PDF that needs `password` to be opened; an empty one only restricts what may be done with it.

    Algorithms 2 and 4 of the PDF reference, for a key of 40 bits.
    """
    identity, owner, permissions = b"0123456789abcdef", b"o" * 32, -4
    padded = (password + _PADDING)[:32]
    hashed = padded + owner + permissions.to_bytes(4, "little", signed=True) + identity
    user = _rc4(hashlib.md5(hashed).digest()[:5], _PADDING)
    encrypt = (
        f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{user.hex()}> "
        f"/P {permissions} >> /ID [<{identity.hex()}> <{identity.hex()}>]"
    )
    return written_pdf(["0 0 100 100"], trailer=encrypt)


def slow_pdf() -> bytes:
    """A PDF that takes several seconds: many pages of many overlapping shapes."""
    shapes = b"".join(b"%d 0 m 0 %d 300 0 0 300 c b*\n" % (i % 300, i % 299) for i in range(500))
    return written_pdf(["0 0 300 300"] * 256, content=shapes)


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
