"""The playground's own files, and the headers that keep everybody else's out.

Knows bytes and their types. The files are those of the wheel, read once; no path of a request ever becomes
a path on disk.
"""

from dataclasses import dataclass, field
from pathlib import Path

from starlette.responses import Response

STATIC_DIRECTORY = Path(__file__).with_name("static")
PAGE_NAME = "index.html"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # uploaded pictures stay in the browser
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Where the browser knows it: no string becomes markup or script, whoever writes the next line of it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

SAFE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, whole."""

    body: bytes = field(repr=False)
    media_type: str

    def response(self) -> Response:
        """The answer to whoever asks for it."""
        return Response(self.body, headers=SAFE_HEADERS, media_type=self.media_type)


def read_assets(directory: Path = STATIC_DIRECTORY) -> dict[str, Asset]:
    """Every file of `directory` by name."""
    return {
        path.name: asset_of(path.name, path.read_bytes())
        for path in sorted(directory.iterdir())
        if path.suffix in _TYPES
    }


def asset_of(name: str, body: bytes) -> Asset:
    """A file, with the type that its name says."""
    return Asset(body, _TYPES[Path(name).suffix])
