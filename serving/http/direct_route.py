"""Routes whose endpoints take the request and answer it, and want nothing else of FastAPI than its documentation."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response


class DirectRoute(APIRoute):
    """Documented as FastAPI's routes are, called as Starlette's are.

    FastAPI keeps two stacks for each request, and looks for parameters and dependencies; these endpoints have
    none. It was a tenth of what a request of one text costs the server's process.
    """

    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **options: Any
    ) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)
