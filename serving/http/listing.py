"""`GET /v1/models`: what this server serves, for clients that ask before they embed.

Answers in OpenAI's shape, with the fields of the public API's beside it where they say something here.
"""

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from serving.http.catalogue import Catalogue
from serving.http.errors import HttpError
from serving.http.wire.answers import ErrorAnswer
from serving.identity import joint_digest
from serving.service import Service

_DESCRIPTION = "Embeddings of texts, images and PDFs in one space, as single vectors or one vector for each token."
_FEATURES = ["dimensions", "late_chunking", "truncate", "return_multivector"]

MODELS_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{model_id:path}"


class CheckpointAnswer(BaseModel):
    """What tells one checkpoint from another, so that vectors and figures can be traced to it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    source: str
    """What was merged, by the name it was given."""

    revision: str | None
    """The source's revision, where it has one."""

    digest: str
    """Of the tensors, tokenizers and prompts: of a task, or of all tasks together."""


class PricingAnswer(BaseModel):
    """What the public API's listing says of prices, in dollars."""

    prompt: str = "0"
    completion: str = "0"
    image: str = "0"
    request: str = "0"
    input_cache_read: str = "0"
    input_cache_write: str = "0"


class DatacenterAnswer(BaseModel):
    """Where the public API computes."""

    country_code: str


class ModelAnswer(BaseModel):
    """One name that requests may give as `model`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """The name; `NAME:TASK` also chooses the task, for clients that cannot send one."""

    name: str
    """The same, for people."""

    description: str
    """What it is."""

    hugging_face_id: str
    """The model as its checkpoint names it."""

    object: Literal["model"] = "model"
    """Always "model"."""

    created: int
    """When this server started, in seconds since 1970."""

    owned_by: str
    """The model as its checkpoint names it."""

    context_length: int
    """Tokens of the longest text."""

    dimensions: int
    """Dimensions of a single vector."""

    matryoshka_dimensions: list[int]
    """Dimensions that the model was trained to be cut to; any other is cut too."""

    multivector_dimensions: int | None
    """Dimensions of a token's vector; null where the checkpoint gives single vectors only."""

    max_image_pixels: int
    """Area to which a larger image is reduced."""

    checkpoint: CheckpointAnswer
    """The weights behind it."""

    max_output_length: int = 0
    """Tokens that it writes: none."""

    quantization: str
    """The type of its weights."""

    pricing: PricingAnswer = PricingAnswer()
    """Nothing costs anything here."""

    supported_features: list[str]
    """Fields of requests that change what vectors are."""

    supported_sampling_parameters: list[str] = []
    """Nothing is sampled."""

    datacenters: list[DatacenterAnswer] = []
    """Not known to the server."""

    input_modalities: list[str]
    """What it takes."""

    output_modalities: list[str]
    """What it gives."""


class ModelsAnswer(BaseModel):
    """All names."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


def listing_routes(catalogue: Catalogue, service: Service, max_text_tokens: int) -> APIRouter:
    """The model, and the model with each of its tasks."""
    router = APIRouter(tags=["models"])
    created = int(time.time())
    manifests = [lane.manifest for lane in service.lanes.values()]
    manifest = manifests[0]
    # Hashed once: a manifest names every tensor.
    together = joint_digest(manifests)
    digests = {task: joint_digest([lane.manifest]) for task, lane in service.lanes.items()}

    def describe(name: str) -> ModelAnswer:
        task = catalogue.choose(name, None).task if ":" in name else None
        return ModelAnswer(
            id=name,
            name=name,
            description=_DESCRIPTION,
            hugging_face_id=manifest.model,
            created=created,
            owned_by=manifest.model,
            context_length=min(
                max_text_tokens,
                manifest.max_text_tokens,
                *(lane.engine.max_tokens for lane in service.lanes.values()),
            ),
            dimensions=manifest.hidden_size,
            matryoshka_dimensions=list(manifest.matryoshka_dims),
            multivector_dimensions=manifest.multi_vector_dim,
            max_image_pixels=manifest.image.max_pixels,
            checkpoint=CheckpointAnswer(
                source=manifest.merge.source.name,
                revision=manifest.merge.source.revision,
                digest=together if task is None else digests[task],
            ),
            quantization=manifest.dtype,
            supported_features=_FEATURES if manifest.multi_vector_dim else _FEATURES[:-1],
            input_modalities=["text", "image", "pdf"],
            output_modalities=["embedding"],
        )

    name = catalogue.model_name
    names = [name, *(f"{name}:{task}" for task in catalogue.public_tasks)]

    async def list_models() -> ModelsAnswer:
        """Every name that requests may give as `model`."""
        return ModelsAnswer(data=[describe(one) for one in names])

    async def read_model(model_id: str) -> ModelAnswer:
        """One of them; other spellings of the name are known too."""
        if not catalogue.knows(model_id):
            raise HttpError(
                404, "RESOURCE_NOT_FOUND", f"No such model is served here. GET {MODELS_PATH}."
            )
        return describe(model_id)

    router.add_api_route(MODELS_PATH, list_models, methods=["GET"], response_model=ModelsAnswer)
    router.add_api_route(
        MODEL_PATH,
        read_model,
        methods=["GET"],
        response_model=ModelAnswer,
        responses={404: {"model": ErrorAnswer, "description": "There is no such model."}},
    )
    return router
