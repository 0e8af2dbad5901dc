"""Vectors from a running polyvec server, over HTTP: requests of JSON, answers of raw values.

Knows the wire alone: `GET /v1/models`, `POST /v1/embeddings` and their answers. Texts are cut where the
server's bound is (`truncate`), pages are reduced to the server's own area: a request cannot ask for another.
"""

import base64
import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Annotated, Self

import httpx
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from benchmarks.quality.errors import ServerError
from benchmarks.quality.source import Ask, Item, Model, model_name, model_revision

_ACCEPT = "application/octet-stream; dtype=fp32"
_BUSY = (429, 503)
_TIMEOUT_S = 600.0
_MAX_WAIT_S = 600.0
_REQUESTS_AT_ONCE = 4
_TEXTS_PER_REQUEST = 64
_IMAGES_PER_REQUEST = 4


class _Checkpoint(BaseModel):
    source: str
    revision: str | None
    digest: str


class _Listed(BaseModel):
    # What a server says beside this is not ours to judge.
    id: str
    dimensions: int
    multivector_dimensions: int | None
    context_length: int
    max_image_pixels: int
    checkpoint: _Checkpoint


class _Listing(BaseModel):
    data: Annotated[list[_Listed], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class ServerSource:
    """A server's tasks; a `Source`.

    Attributes:
        client: of the server's URL, with the key.
        served_name: the model as requests name it.
        model: as the server describes it.
        public_tasks: adapters and sides, as requests name them.
    """

    client: httpx.Client
    served_name: str
    model: Model
    public_tasks: tuple[str, ...]
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_REQUESTS_AT_ONCE, "embed")
    )

    @classmethod
    def of(cls, url: str, key: str | None) -> Self:
        """Ask the server what it serves.

        Args:
            url: without a path, as `http://127.0.0.1:8000`; a trailing `/v1` does no harm.
            key: of the server, where it wants one.

        Raises:
            ServerError: it does not answer, refuses the key, or is not a polyvec server of this release.
        """
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            client = httpx.Client(
                base_url=url.rstrip("/").removesuffix("/v1"), headers=headers, timeout=_TIMEOUT_S
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ServerError(f"--server {url} is not a URL ({error}).") from error
        with ExitStack() as undo:
            undo.callback(client.close)
            listed = _listed(client)
            undo.pop_all()
        first = listed[0]
        public = tuple(one.id.partition(":")[2] for one in listed[1:])
        return cls(client, first.id, _model(first, public), public)

    def start(self, adapters: Sequence[str]) -> None:
        """Nothing: the server runs."""

    def embed(self, items: Sequence[Item], ask: Ask) -> list[Tensor]:
        """Embed, a few requests at a time; see `Source.embed`."""
        parts = self._threads.map(lambda part: self._request(part, ask), list(_parts(items)))
        return list(chain.from_iterable(parts))

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(cancel_futures=True)
        self.client.close()

    def _request(self, items: Sequence[Item], ask: Ask) -> list[Tensor]:
        body: dict[str, object] = {
            "model": self.served_name,
            "task": self._public(ask),
            "input": [_spelled(item) for item in items],
            "truncate": True,
            "return_multivector": ask.vectors == "multi",
        }
        if ask.dimensions is not None:
            body["dimensions"] = ask.dimensions
        request = self.client.build_request(
            "POST", "/v1/embeddings", json=body, headers={"Accept": _ACCEPT}
        )
        return _vectors(_send(self.client, request).content, len(items), ask)

    def _public(self, ask: Ask) -> str:
        """The task as requests spell it: some have sides; text matching has none, and is a query's."""
        sided = f"{ask.adapter}.{ask.prompt}"
        if sided in self.public_tasks:
            return sided
        if ask.prompt != "query":
            raise ServerError(
                f"{self.client.base_url} has no {sided}, and would embed with another prefix. "
                f"Leave out the prompt, or choose among {list(self.public_tasks)}."
            )
        return ask.adapter


def _listed(client: httpx.Client) -> list[_Listed]:
    answer = _send(client, client.build_request("GET", "/v1/models"))
    try:
        return _Listing.model_validate_json(answer.content).data
    except ValidationError as error:
        raise ServerError(
            f"{client.base_url} does not describe its checkpoint at /v1/models. "
            "Ask a polyvec server of this release."
        ) from error


def _model(listed: _Listed, public_tasks: Sequence[str]) -> Model:
    adapters = {task.removesuffix(".query").removesuffix(".passage"): None for task in public_tasks}
    return Model(
        name=model_name(listed.checkpoint.source),
        revision=model_revision(listed.checkpoint.revision, listed.checkpoint.digest),
        adapters=tuple(sorted(adapters)),
        dim=listed.dimensions,
        dimensions=None,
        multi_vector_dim=listed.multivector_dimensions,
        max_pixels=listed.max_image_pixels,
        max_tokens=listed.context_length,
    )


def _parts(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Neighbours for one request each: bodies of megabytes, not of gigabytes."""
    part: list[Item] = []
    for item in items:
        images = sum(not isinstance(one, str) for one in [*part, item])
        if part and (images > _IMAGES_PER_REQUEST or len(part) == _TEXTS_PER_REQUEST):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _spelled(item: Item) -> object:
    if isinstance(item, str):
        return {"text": item}
    return {"image": png_base64(item)}


def png_base64(image: Image.Image) -> str:
    """The page without loss, as a request has it."""
    file = io.BytesIO()
    _lossless(image).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _lossless(image: Image.Image) -> Image.Image:
    # What PNG cannot hold the server would convert too.
    return image if image.mode in {"RGB", "RGBA", "L", "LA", "P", "1"} else image.convert("RGB")


def _send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The answer, if it is 200; waits where the server says that it is busy."""
    give_up = time.monotonic() + _MAX_WAIT_S
    while True:
        try:
            answer = client.send(request)
        except httpx.HTTPError as error:
            raise ServerError(
                f"{client.base_url} does not answer ({type(error).__name__}: {error}). "
                "Is `polyvec serve` running there?"
            ) from error
        if answer.status_code == httpx.codes.OK:
            return answer
        wait_s = _retry_after_s(answer)
        if answer.status_code not in _BUSY or time.monotonic() + wait_s > give_up:
            raise ServerError(
                f"{client.base_url} answered {answer.status_code}: {_detail(answer)}"
                + _next_step(answer)
            )
        time.sleep(wait_s)


def _retry_after_s(answer: httpx.Response) -> float:
    try:
        return max(0.1, float(answer.headers.get("retry-after", 1)))
    except ValueError:
        return 1.0


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    return str(detail)


def _next_step(answer: httpx.Response) -> str:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return " Put a key of the server into POLYVEC_API_KEY."
    if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return " Start the server with larger --max-image-bytes and --max-body-bytes."
    return ""


def _vectors(content: bytes, num_items: int, ask: Ask) -> list[Tensor]:
    try:
        tensors = load(content)
        embeddings = tensors["embeddings"]
        if ask.vectors == "multi":
            ends = tensors["offsets"].tolist()
            vectors = [embeddings[a:b] for a, b in pairwise(ends)]
        else:
            vectors = list(embeddings)
    except (SafetensorError, KeyError) as error:
        raise ServerError(
            "The answer is not the safetensors file that was asked for. Ask a polyvec server."
        ) from error
    if len(vectors) != num_items:
        raise ServerError(f"The answer has {len(vectors)} embeddings for {num_items} inputs.")
    return vectors
