"""The search of `polyvec demo`, as a client of the server that it started: pages, queries, ranks, and a heat map.

It speaks HTTP as any client would, and knows nothing of engines. It prints nothing.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from pooling import maxsim_scores
from serving.errors import EngineError

_TIMEOUT_S = 300.0
_INPUTS_PER_REQUEST = 6
_SHADE = (214, 69, 65)
_LABEL_HEIGHT = 26


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that answers a query, with its place in the corpus, its scores, and its rank by MaxSim, from 1."""

    at: int
    page: str
    cosine: float
    maxsim: float
    maxsim_rank: int


@dataclass(frozen=True, slots=True)
class Found:
    """A query, the page that it was written for, and the pages that were found, best cosine first."""

    query: str
    wanted: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Multi-vectors of one input [token, dim], its tokens, and for a page where its patches lie."""

    vectors: Tensor
    names: list[str]
    start: int = 0
    rows: int = 0
    columns: int = 0


class Search:
    """The playground's own corpus, embedded over HTTP once, and searched."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        config = self._get("/playground/config").json()
        self._model, self._task = config["model"], config["tasks"][0]
        self._pages = config["corpus"]["pages"]
        self._files = [
            self._get(f"/playground/corpus/{page['file']}").content for page in self._pages
        ]
        encoded = [{"image": base64.b64encode(file).decode("ascii")} for file in self._files]
        self._single = self._embed_single(encoded, "passage")
        self._multi = self._embed_multi(encoded, "passage")

    @property
    def num_pages(self) -> int:
        """How many there are to find."""
        return len(self._pages)

    def find(self, count: int, *, hits: int = 3) -> list[Found]:
        """Ask for `count` pages, spread over the corpus, each by the first query that it is known to answer."""
        asked = [page for page in self._pages if page["queries"]]
        chosen = asked[:: max(1, len(asked) // count)][:count]
        queries = [page["queries"][0] for page in chosen]
        cosine = self._embed_single(queries, "query") @ self._single.T
        late = maxsim_scores(
            [one.vectors for one in self._embed_multi(queries, "query")],
            [one.vectors for one in self._multi],
        )
        return [
            Found(page["queries"][0], page["title"], self._hits(cosine[at], late[at], hits))
            for at, page in enumerate(chosen)
        ]

    def draw(self, found: Found, path: Path) -> None:
        """Write a picture: the best page, and beside it where each word of the query is found on it."""
        best = found.hits[0].at
        page = Image.open(BytesIO(self._files[best])).convert("RGB")
        patches = self._multi[best]
        query = self._embed_multi([found.query], "query")[0]
        rows = patches.vectors[patches.start : patches.start + patches.rows * patches.columns]
        similarity = query.vectors @ rows.T
        tiles = [_labelled(page, "page")]
        for at in range(_num_prefix_tokens(query.names, found.query), len(query.names)):
            grid = similarity[at].view(patches.rows, patches.columns)
            tiles.append(_labelled(_shaded(page, grid), query.names[at].strip()))
        _in_a_grid(tiles, columns=4).save(path)

    def _hits(self, cosine: Tensor, late: Tensor, count: int) -> tuple[Hit, ...]:
        late_ranks = late.argsort(descending=True).argsort() + 1
        return tuple(
            Hit(
                at,
                self._pages[at]["title"],
                float(cosine[at]),
                float(late[at]),
                int(late_ranks[at]),
            )
            for at in cosine.argsort(descending=True)[:count].tolist()
        )

    def _embed_single(self, inputs: Sequence[object], side: str) -> Tensor:
        rows = self._ask(inputs, task=self._task[side])
        return torch.stack([_floats(row["embedding"]) for row in rows])

    def _embed_multi(self, inputs: Sequence[object], side: str) -> list[Tokens]:
        rows = self._ask(
            inputs, task=self._task[side], return_multivector=True, return_tokenized_input=True
        )
        return [
            Tokens(
                torch.stack([_floats(vector) for vector in row["embeddings"]]),
                row["tokenized_input"],
                **row.get("patches", {}),
            )
            for row in rows
        ]

    def _ask(self, inputs: Sequence[object], **options: object) -> list[Any]:
        rows: list[Any] = []
        # A few at a time: a large model on a CPU takes seconds a page, and a request has a deadline.
        for start in range(0, len(inputs), _INPUTS_PER_REQUEST):
            some = inputs[start : start + _INPUTS_PER_REQUEST]
            asked = {"model": self._model, "embedding_type": "base64", "input": some, **options}
            rows += self._request("POST", "/v1/embeddings", asked).json()["data"]
        return rows

    def _get(self, path: str) -> httpx.Response:
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body).raise_for_status()
        except httpx.HTTPError as error:
            raise EngineError(
                f"The demo's own server did not answer {method} {path} ({error}). Its log says why."
            ) from error


def _floats(encoded: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(encoded), dtype="<f4").copy())


def _num_prefix_tokens(names: Sequence[str], query: str) -> int:
    """Tokens before the query's own: what the server put there says nothing of a page."""
    return next((at for at in range(len(names)) if "".join(names[at:]).strip() == query.strip()), 0)


def _shaded(page: Image.Image, similarity: Tensor) -> Image.Image:
    """The page, red where `similarity` [row, column] is high: from its mean, nothing, to its maximum, most."""
    above = (similarity - similarity.mean()).clamp(min=0)
    strength = above / above.max().clamp(min=1e-6)
    smooth = interpolate(
        strength[None, None], (page.height, page.width), mode="bilinear", align_corners=False
    )[0, 0]
    mask = Image.fromarray((smooth.numpy() * 165).astype(np.uint8))
    return Image.composite(Image.new("RGB", page.size, _SHADE), page, mask)


def _labelled(tile: Image.Image, label: str) -> Image.Image:
    width = 224
    height = round(tile.height * width / tile.width)
    out = Image.new("RGB", (width + 16, height + _LABEL_HEIGHT + 16), "white")
    out.paste(tile.resize((width, height)), (8, _LABEL_HEIGHT + 8))
    ImageDraw.Draw(out).text((8, 8), label, fill="black", font_size=16)
    return out


def _in_a_grid(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    out = Image.new("RGB", (width * min(columns, len(tiles)), height * rows), "white")
    for at, tile in enumerate(tiles):
        out.paste(tile, (width * (at % columns), height * (at // columns)))
    return out
