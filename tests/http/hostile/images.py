"""Images that are bombs, broken, several at once, or something else.

The server of these tests takes 256 KiB an image and 4,000,000 pixels.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

from PIL import Image

from tests.http.hostile.case import MARK, Case, Http, in_base64, posted

NOISE = Image.effect_noise((40, 40), 90).convert("RGB")
CUTS = tuple(range(0, 100, 10))


def cases() -> Iterator[Case]:
    for name, make in refused().items():
        yield sent(name, 422, make)
    for name, make in taken().items():
        yield sent(name, 200, make)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "AVIF"):
        whole = encoded(NOISE, kind)
        for percent in CUTS:
            cut = whole[: len(whole) * percent // 100]
            yield sent(f"{kind} of {percent} %", 422, lambda cut=cut: cut)
    yield from shapes()


def sent(name: str, status: int, make: Callable[[], bytes]) -> Case:
    def body() -> bytes:
        document = {"model": "jina-embeddings-v4", "input": [{"image": in_base64(make())}]}
        return json.dumps(document).encode()

    return Case(f"image: {name}", Http(body), status)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    *,
    depth: int = 8,
    color: int = 0,
    before: bytes = b"",
    data: bytes | None = None,
    after: bytes = b"",
) -> bytes:
    """A PNG by hand; `before` and `after` are chunks around its pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 1)
    if data is None:
        row = b"\0" * (1 + (width * depth * channels + 7) // 8)
        data = zlib.compress(row * height, 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


@cache
def gigapixel() -> bytes:
    """A real one: 31,700 x 31,700 pixels of one bit in some 120 kB."""
    return png(31_700, 31_700, depth=1)


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose head says another size."""
    whole = bytearray(encoded(NOISE, "JPEG"))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def jpeg_of_scans(num_scans: int) -> bytes:
    whole = encoded(NOISE, "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    scan = whole[at : at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")]
    return whole[:-2] + scan * num_scans + whole[-2:]


def gif(width: int, height: int, *, frame: tuple[int, int, int, int] = (0, 0, 1, 1)) -> bytes:
    """A GIF of one frame, whose screen has another size."""
    screen = struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + screen + b"\x2c" + struct.pack("<HHHH", *frame) + b"\0\x02\x02\x44\x01\0;"


def tiff(tags: dict[int, tuple[int, int, int]], *, next_page: int = 0) -> bytes:
    """A TIFF of one page with these tags: type, count and value."""
    page = struct.pack("<H", len(tags))
    page += b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return b"II*\0\x08\0\0\0" + page + struct.pack("<I", next_page) + MARK.encode()


GRAY = {256: (3, 1, 4), 257: (3, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)} | {
    273: (4, 1, 0),
    277: (3, 1, 1),
    278: (3, 1, 1),
    279: (4, 1, 4),
}


def framed(kind: str) -> bytes:
    other = Image.effect_noise((40, 40), 90).convert("RGB")
    return encoded(NOISE, kind, save_all=True, append_images=[other])


def refused() -> dict[str, Callable[[], bytes]]:
    text = zlib.compress(b"a" * (70 << 20), 9)
    return {
        "a gigapixel": gigapixel,
        "one pixel too many": lambda: png(2000, 2001, depth=1),
        "a PNG of four billion pixels": lambda: png(65_535, 65_535, data=b""),
        "a PNG of 2^31 x 2^31": lambda: png(2**31 - 1, 2**31 - 1, data=b""),
        "a PNG of 2^32-1": lambda: png(2**32 - 1, 1, data=b""),
        "a JPEG of 65,500 x 65,500": lambda: jpeg_of(65_500, 65_500),
        "a JPEG larger than its data": lambda: jpeg_of(1999, 1999)[:200],
        "a JPEG of no size": lambda: jpeg_of(0, 0),
        "a JPEG of 501 scans": lambda: jpeg_of_scans(501),
        "a GIF of 65,535 x 65,535": lambda: gif(65_535, 65_535),
        "a GIF whose frame is larger": lambda: gif(1, 1, frame=(0, 0, 65_535, 65_535)),
        "a GIF whose frame is outside": lambda: gif(1, 1, frame=(65_000, 65_000, 9, 9)),
        "a BMP of 2^31": lambda: _bmp(2**31 - 1, 2**31 - 1),
        "a BMP of negative width": lambda: _bmp(-5, 5),
        "a WebP of the largest size": _webp,
        "a TIFF of 2^31 x 2^31": lambda: tiff(GRAY | {256: (4, 1, 2**31), 257: (4, 1, 2**31)}),
        "a TIFF whose next page is nowhere": lambda: tiff(GRAY, next_page=2**31),
        "a TIFF of strips beyond the file": lambda: tiff(GRAY | {273: (4, 1, 2**31)}),
        "a TIFF of a compression unknown": lambda: tiff(GRAY | {259: (3, 1, 9999)}),
        "a TIFF without tags": lambda: tiff({}),
        "a compressed text of 70 MB": lambda: png(
            4, 4, before=chunk(b"zTXt", b"Comment\0\0" + text)
        ),
        "an international text of 70 MB": lambda: png(
            4, 4, before=chunk(b"iTXt", b"Comment\0\1\0\0\0" + text)
        ),
        "a profile of 70 MB": lambda: png(4, 4, before=chunk(b"iCCP", b"p\0\0" + text)),
        "two hundred texts": lambda: png(
            4, 4, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (1 << 20), 9)) * 200
        ),
        "an animated GIF": lambda: framed("GIF"),
        "an animated PNG": lambda: framed("PNG"),
        "an animated WebP": lambda: framed("WEBP"),
        "an animated AVIF": lambda: framed("AVIF"),
        "a TIFF of two pages": lambda: framed("TIFF"),
        "16 bits": lambda: png(8, 8, depth=16),
        "floats": lambda: encoded(Image.new("F", (8, 8)), "TIFF"),
        "32 bits": lambda: encoded(Image.new("I", (8, 8)), "TIFF"),
        "1 x 100,000": lambda: png(100_000, 1, depth=1),
        "100,000 x 1": lambda: png(1, 100_000, depth=1),
        "no width": lambda: png(0, 5, data=b""),
        "no size": lambda: png(0, 0, data=b""),
        "a PNG without pixels": lambda: png(8, 8, data=b""),
        "a PNG of too few pixels": lambda: png(500, 500, data=zlib.compress(b"\0" * 9)),
        "a PNG whose pixels are not zlib": lambda: png(8, 8, data=MARK.encode()),
        "a PNG of depth 3": lambda: png(8, 8, depth=3, data=b""),
        "a PNG whose chunk has no end": lambda: b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIHDR",
        "a PNG with a wrong checksum": lambda: png(8, 8).replace(b"IHDR", b"IHDX"),
        "256 KiB and one byte": lambda: png(4, 4) + b"\0" * (256 << 10),
        "an SVG": lambda: (
            f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///{MARK}"/></svg>'.encode()
        ),
        "HTML": lambda: f"<html><img src=x onerror={MARK}>".encode(),
        "a PDF": lambda: b"%PDF-1.7\n" + MARK.encode(),
        "EPS": lambda: (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(id) run\n"
        ),
        "EPS by Pillow": lambda: encoded(NOISE, "EPS"),
        "an icon": lambda: encoded(NOISE, "ICO", sizes=[(16, 16)]),
        "an icon of Apple's": lambda: encoded(NOISE.resize((64, 64)), "ICNS"),
        "JPEG 2000": lambda: encoded(NOISE, "JPEG2000"),
        "PPM": lambda: encoded(NOISE, "PPM"),
        "TGA": lambda: encoded(NOISE, "TGA"),
        "PSD": lambda: b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + b"\0" * 40,
        "FITS": lambda: b"SIMPLE  =                    T".ljust(80) + b"END".ljust(80),
        "WMF": lambda: b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
        "FLI": lambda: struct.pack("<IHHHHHHI", 128, 0xAF11, 1, 9, 9, 8, 0, 5) + b"\0" * 110,
        "MPEG": lambda: b"\0\0\1\xb3" + b"\x01\x00\x10" + b"\0" * 40,
        "DDS": lambda: b"DDS " + struct.pack("<I", 124) + b"\0" * 120,
        "an archive": lambda: b"PK\x03\x04" + b"\0" * 40,
        "a program": lambda: b"\x7fELF" + b"\0" * 60,
        "zeros": lambda: b"\0" * 1000,
        "one byte": lambda: b"\x89",
        "a text": MARK.encode,
    }


def taken() -> dict[str, Callable[[], bytes]]:
    """Odd, and still one image."""
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + MARK.encode()
    return {
        "one pixel": lambda: png(1, 1),
        "as many pixels as may be": lambda: png(2000, 2000, depth=1),
        "a palette": lambda: encoded(NOISE.convert("P"), "PNG"),
        "a palette with transparency": lambda: encoded(
            NOISE.convert("P"), "PNG", transparency=bytes(range(256))
        ),
        "CMYK": lambda: encoded(NOISE.convert("CMYK"), "JPEG"),
        "gray and alpha": lambda: encoded(NOISE.convert("LA"), "PNG"),
        "16 bits of color": lambda: png(8, 8, depth=16, color=2),
        "a progressive JPEG": lambda: encoded(NOISE, "JPEG", progressive=True),
        "broken EXIF": lambda: encoded(NOISE, "JPEG", exif=broken),
        "a photo with a preview": lambda: framed("MPO"),
        "a JPEG and an archive": lambda: encoded(NOISE, "JPEG") + b"PK\x05\x06" + b"\0" * 18,
        "a PNG and HTML": lambda: png(4, 4) + f"<script>{MARK}</script>".encode(),
        "a PNG with a chunk unknown": lambda: png(4, 4, before=chunk(b"maRk", MARK.encode())),
        "a PNG with a text": lambda: png(4, 4, before=chunk(b"tEXt", b"a\0" + MARK.encode())),
        "a PNG with data after its end": lambda: png(4, 4) + b"\0" * 1000,
        "a BMP": lambda: encoded(NOISE, "BMP"),
        "a BMP from top to bottom": lambda: _bmp(5, -5),
        "a TIFF of one page": lambda: encoded(NOISE, "TIFF", compression="tiff_lzw"),
        "a WebP without loss": lambda: encoded(NOISE, "WEBP", lossless=True),
        "a GIF of one frame": lambda: encoded(NOISE, "GIF"),
        "AVIF": lambda: encoded(NOISE, "AVIF"),
        "a TIFF with a billion values": lambda: tiff(GRAY | {258: (3, 2**30, 8)}),
        "a TIFF that leads to itself": lambda: tiff(GRAY, next_page=8),
    }


def _bmp(width: int, height: int) -> bytes:
    rows = b"\0" * 100
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows


def _webp() -> bytes:
    """The head of a lossless WebP of 16,384 x 16,384."""
    data = b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + b"\0" * 11
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def shapes() -> Iterator[Case]:
    """The same image in shapes that only the wire knows."""
    data = in_base64(png(4, 4))
    given: dict[str, tuple[object, int]] = {
        "URL-safe base64 in lines": (data.replace("+", "-")[:40] + "\r\n" + data[40:], 200),
        "a data URI of a lie": (f"data:image/jpeg;base64,{data}", 200),
        "a data URI of an SVG": (f"data:image/svg+xml;base64,{in_base64(b'<svg/>')}", 422),
        "base64 of base64": (in_base64(data.encode()), 422),
    }
    for name, (value, status) in given.items():
        body = {"model": "jina-embeddings-v4", "input": {"image": value}}
        yield posted(f"image: {name}", status, body)
