"""The playground's routes, and what logs and metrics call them.

Everything is asked for beside the page (`/playground/...`), which itself has no slash at its end: a browser
then sends the key that it was given for the page to the whole server, `/v1/embeddings` too.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from serving.http.answer import JSON
from serving.http.desk import Desk
from serving.http.playground.assets import PAGE_NAME, SAFE_HEADERS, Asset, asset_of, read_assets
from serving.http.playground.corpus import CorpusIndex, read_corpus
from serving.http.playground.description import describe
from serving.http.playground.pages import PagesRoute
from serving.service import Service

PLAYGROUND_PATH = "/playground"
CONFIG_PATH = f"{PLAYGROUND_PATH}/config"
PAGES_PATH = f"{PLAYGROUND_PATH}/pages"
FILE_LABEL = f"{PLAYGROUND_PATH}/{{file}}"
"""What logs and metrics call every file; more of them would say no more."""

SLASHED_PATH = f"{PLAYGROUND_PATH}/"
"""Leads to the page; needs no key, which would then be good for the paths below it alone."""


@dataclass(frozen=True, slots=True)
class Playground:
    """What a server with a playground serves besides the API.

    Attributes:
        files: by path; the page itself is one of them.
        corpus: the pages that come along.
    """

    files: dict[str, Asset]
    corpus: CorpusIndex

    @classmethod
    def read(cls) -> "Playground":
        """That of this installation.

        Raises:
            SettingsError: its corpus is broken.
        """
        assets = read_assets()
        corpus, pictures = read_corpus()
        files = {PLAYGROUND_PATH: assets.pop(PAGE_NAME)}
        files |= {f"{PLAYGROUND_PATH}/{name}": asset for name, asset in assets.items()}
        files |= {
            f"{PLAYGROUND_PATH}/corpus/{name}": asset_of(name, body)
            for name, body in pictures.items()
        }
        return cls(files, corpus)

    @property
    def labels(self) -> dict[str, str]:
        """What logs and metrics call each path."""
        own = (PLAYGROUND_PATH, CONFIG_PATH, PAGES_PATH)
        return dict.fromkeys([*self.files, SLASHED_PATH], FILE_LABEL) | {path: path for path in own}

    def routes(self, desk: Desk, service: Service, version: str) -> APIRouter:
        """The routes; like the files they serve, no part of the public API."""
        router = APIRouter(include_in_schema=False)
        description = describe(service, desk.catalogue, desk.settings, self.corpus, version)
        config = description.model_dump_json().encode()

        async def read_config() -> Response:
            return Response(config, headers=SAFE_HEADERS, media_type=JSON)

        async def without_slash() -> Response:
            return RedirectResponse(f"..{PLAYGROUND_PATH}", status_code=308)

        router.add_api_route(CONFIG_PATH, read_config, methods=["GET"])
        router.add_api_route(SLASHED_PATH, without_slash, methods=["GET"])
        router.add_api_route(
            PAGES_PATH, PagesRoute(desk).answer, methods=["POST"], response_model=None
        )
        for path, asset in self.files.items():
            router.add_api_route(path, _reader(asset), methods=["GET"])
        return router


def _reader(asset: Asset) -> Callable[[], Awaitable[Response]]:
    async def read() -> Response:
        return asset.response()

    return read
