"""The JSON of `GET /v1/models`: what OpenAI's clients and the public API's expect of a model, together.

It does not know which models there are.
"""

from typing import Literal

from pydantic import ConfigDict

from serving.http.wire.answers import Count, WireAnswer


class ModelPricing(WireAnswer):
    """What things cost, in the public API's words: nothing, on your own machine."""

    prompt: str = "0"
    """A token."""

    completion: str = "0"
    """A token of output."""

    image: str = "0"
    """An image."""

    request: str = "0"
    """A request."""

    input_cache_read: str = "0"
    """A cached token."""

    input_cache_write: str = "0"
    """A token that is cached."""


class ModelDatacenter(WireAnswer):
    """Where a model is served."""

    country_code: str
    """ISO 3166."""


class ModelInfo(WireAnswer):
    """A model that requests can name."""

    model_config = ConfigDict(frozen=True)

    id: str
    """What requests give as `model`."""

    object: Literal["model"] = "model"
    """Always "model"."""

    created: Count
    """Seconds since 1970."""

    owned_by: str = "polyvec"
    """Who serves it."""

    hugging_face_id: str
    """Where the model comes from."""

    name: str
    """The model's name for people."""

    description: str
    """What it does."""

    input_modalities: tuple[str, ...] = ("text", "image")
    """What it takes."""

    output_modalities: tuple[str, ...] = ("embeddings",)
    """What it returns."""

    quantization: str
    """The type of its weights."""

    context_length: Count
    """Tokens of one text."""

    max_output_length: Count = 0
    """Tokens it writes: none."""

    pricing: ModelPricing = ModelPricing()
    """What it costs."""

    supported_sampling_parameters: tuple[str, ...] = ()
    """None: nothing is sampled."""

    supported_features: tuple[str, ...] = ()
    """Further abilities."""

    datacenters: tuple[ModelDatacenter, ...] = ()
    """Where it is served; not known."""


class ModelsAnswer(WireAnswer):
    """All models."""

    object: Literal["list"] = "list"
    """Always "list"."""

    data: list[ModelInfo]
    """Models that requests can name."""
