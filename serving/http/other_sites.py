"""Pages of other sites, in browsers that are let in here: they ask for nothing on their own.

A browser sends a password that it holds along with whatever any page asks, and reaches a loopback address that
nobody else can. What a page may read of an answer is the browser's to decide, by the headers of Starlette's
CORSMiddleware; that it spends nothing unasked is decided here. Programs that are no browser say nothing of sites.
"""

from collections.abc import Collection

from starlette.datastructures import Headers

from serving.http.errors import HttpError

ANY_ORIGIN = "*"
_ASKED_FIRST = "application/json"


class OtherSites:
    """Refuses what pages of other sites ask for with what is not theirs.

    Args:
        origins: whose pages may ask; `*` is any.
        keyless: the server lets everyone in who reaches it, a browser among them.
    """

    def __init__(self, origins: Collection[str] = (), *, keyless: bool = False) -> None:
        self._origins = frozenset(origins)
        self._keyless = keyless

    def check(self, method: str, headers: Headers) -> None:
        """Return if the request is its sender's own.

        Source: Fetch Metadata Request Headers (https://www.w3.org/TR/fetch-metadata/), which no page can set. A key that
        a page sends as a Bearer token was put there by it, and is not concerned.

        Raises:
            HttpError: 403.
        """
        site = headers.get("sec-fetch-site", "none")
        if method in ("GET", "HEAD") or site in ("none", "same-origin"):
            return
        if headers.get("authorization", "").strip().lower().startswith("basic"):
            raise HttpError(
                403,
                "CROSS_SITE_REQUEST",
                "A page of another site may not use the key that this browser holds. Send it from your own program "
                "as: Authorization: Bearer KEY",
            )
        # For JSON a browser has asked first, and was told yes, be it by a gateway. Another port of the same machine is
        # the same site: whoever runs a page there may run this as well.
        unasked = not headers.get("content-type", "").strip().lower().startswith(_ASKED_FIRST)
        if self._keyless and unasked and site != "same-site" and not self._names(headers):
            raise HttpError(
                403,
                "CROSS_SITE_REQUEST",
                "This server has no keys, and a page of another site may not use it because a browser can reach it. "
                "Name the page's origin in --cors-origins, or make a key.",
            )

    def _names(self, headers: Headers) -> bool:
        return ANY_ORIGIN in self._origins or headers.get("origin") in self._origins
