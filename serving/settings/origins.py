"""Origins of pages in browsers, spelled as browsers spell them. Knows nothing of who may do what."""

import re
from typing import Annotated

from pydantic import AfterValidator

_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]+)?")
_DEFAULT_PORTS = (("http://", ":80"), ("https://", ":443"))


def read_origin(value: str) -> str:
    """An origin as browsers spell it: lower case, and without the scheme's own port.

    Raises:
        ValueError: it is neither one nor `*`.
    """
    origin = value.lower()
    if origin == "*":
        return origin
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{value!r} is no origin: scheme, host and perhaps a port, without a path, as https://app.example.com "
            "or http://localhost:3000; * is any"
        )
    for scheme, port in _DEFAULT_PORTS:
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin


Origin = Annotated[str, AfterValidator(read_origin)]
