"""What the page asks the server about itself before anything else: models, tasks, limits and the corpus.

The answer of `GET /playground/config`; everything in it is known when the server starts.
"""

from pydantic import BaseModel, ConfigDict

from serving.http.catalogue import Catalogue
from serving.http.playground.corpus import CorpusIndex
from serving.service import Lane, Service
from serving.settings import ServerSettings


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class PlaygroundTask(_Answer):
    """One adapter, as requests for its two sides name it."""

    name: str
    """Of the merged checkpoint."""

    query: str
    """`task` of requests that embed a query."""

    passage: str
    """`task` of requests that embed pages."""

    query_prefix: str
    """What the server puts before a query; its tokens are among the query's."""

    dimensions: list[int]
    """Dimensions that single vectors were trained to be cut to; the last is all of them."""

    multivector_dimensions: int | None
    """Dimensions of a token's vector; null where there are single vectors only."""


class PlaygroundLimits(_Answer):
    """What may be sent; the server refuses more, and the page says so before."""

    max_image_bytes: int
    """Of one encoded image."""

    max_image_pixels: int
    """Of one image, decoded."""

    max_pdf_bytes: int
    """Of one PDF."""

    max_pdf_pages: int
    """Of one PDF."""

    max_body_bytes: int
    """Of one request, in which files are base64."""

    max_inputs: int
    """Of one request."""


class PlaygroundDescription(_Answer):
    """The server, to the page."""

    model: str
    """`model` of requests."""

    checkpoint: str
    """What was merged, by the name it was given; not `model`, which clients of the public API send."""

    version: str
    """Of polyvec."""

    needs_key: bool
    """Whether requests need a key; the browser sends what it was given for the page."""

    tasks: list[PlaygroundTask]
    """What is served, in the order it was given in."""

    limits: PlaygroundLimits
    """What may be sent."""

    corpus: CorpusIndex
    """The pages that come with the playground."""


def describe(
    service: Service,
    catalogue: Catalogue,
    settings: ServerSettings,
    corpus: CorpusIndex,
    version: str,
) -> PlaygroundDescription:
    """The description of one server."""
    public = catalogue.public_tasks
    return PlaygroundDescription(
        model=catalogue.model_name,
        checkpoint=next(iter(service.lanes.values())).manifest.merge.source.name,
        version=version,
        needs_key=settings.keys is not None,
        tasks=[_task(name, lane, public) for name, lane in service.lanes.items()],
        limits=PlaygroundLimits(
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_decoded_pixels,
            max_pdf_bytes=settings.max_pdf_bytes,
            max_pdf_pages=settings.max_pdf_pages,
            max_body_bytes=settings.max_body_bytes,
            max_inputs=settings.max_inputs,
        ),
        corpus=corpus,
    )


def _task(name: str, lane: Lane, public: list[str]) -> PlaygroundTask:
    manifest = lane.manifest

    def side(prompt: str) -> tuple[str, str]:
        """How requests name one side of the task, and the prompt that they get."""
        if f"{name}.{prompt}" in public:
            return f"{name}.{prompt}", prompt
        # Without sides, or with sides of other names, the checkpoint's default stands for both.
        default = manifest.default_prompt
        return (name if name in public else f"{name}.{default}"), default

    query, prompt = side("query")
    passage, _ = side("passage")
    return PlaygroundTask(
        name=name,
        query=query,
        passage=passage,
        query_prefix=manifest.prompts[prompt],
        dimensions=sorted({*manifest.matryoshka_dims, manifest.hidden_size}),
        multivector_dimensions=manifest.multi_vector_dim,
    )
