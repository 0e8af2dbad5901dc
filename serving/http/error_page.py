"""An error as a page, for people who opened an address and would else see JSON.

Knows the error; no path, and nothing of what its page would have shown.
"""

import base64
import hashlib
import html

from serving.http.errors import HttpError

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1.0625rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; line-height: 1.25; letter-spacing: -0.01em; margin: 0 0 0.75rem; }
p { margin: 0 0 0.75rem; }
small { opacity: 0.75; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def page_of(error: HttpError, request_id: str) -> bytes:
    """The HTML of `error`, whole and without anything to load."""
    if error.status == 401:
        title = "This page wants an API key"
        advice = (
            "Reload it and answer the browser's question: any user name, and one of this server's "
            "API keys as the password."
        )
        said = "" if error.code == "AUTH_MISSING_API_KEY" else error.detail
    else:
        title, advice, said = f"The server answered {error.status}", error.detail, ""
    paragraphs = [advice, said] if said else [advice]
    body = "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{body}"
        f"<p><small>{html.escape(error.code)} · request {html.escape(request_id)}</small></p>"
        "</main></body></html>"
    ).encode()
