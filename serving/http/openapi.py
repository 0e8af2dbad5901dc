"""The OpenAPI document of the computing routes, which read their bodies themselves.

FastAPI describes what it parses; here bodies are parsed by `wire`, so their schemas are put in by hand.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.http.health import HEALTH_PATHS
from serving.http.wire.answers import (
    EmbeddingsAnswer,
    ErrorAnswer,
    RerankAnswer,
    ScoreAnswer,
)
from serving.http.wire.bodies import EmbeddingsBody, RerankBody, ScoreBody
from serving.http.wire.negotiate import OCTETS_TYPE

_REF = "#/components/schemas/{model}"

_ERRORS = {
    400: "The model is not served here.",
    401: "The key is missing, malformed or unknown.",
    406: "The Accept header asks for a dtype that does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON, or is compressed.",
    422: "A field or an input is wrong; `errors` says which.",
    429: "A limit of the key is reached; Retry-After says when to try again.",
    500: "Something went wrong in the server, or the engine has no usable vectors for an input; it is logged under `request_id`.",
    503: "The server is full, or an engine is starting; Retry-After says when to try again.",
    504: "The answer was not ready in time.",
}


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """What `/docs` says of one route.

    Attributes:
        operation_id: its name in generated clients.
        summary: one line.
        description: the rest.
        body: model of the request's body.
        answer: model of the answer's.
        is_binary: whether raw values can be asked for instead.
    """

    operation_id: str
    summary: str
    description: str
    body: type[BaseModel]
    answer: type[BaseModel]
    is_binary: bool = False

    @property
    def request_body(self) -> dict[str, Any]:
        """FastAPI's `openapi_extra`."""
        schema = {"$ref": _REF.format(model=self.body.__name__)}
        return {
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        }

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """FastAPI's `responses`."""
        answered: dict[str, Any] = {"model": self.answer, "description": "The answer."}
        if self.is_binary:
            answered["content"] = {
                OCTETS_TYPE: {
                    "schema": {
                        "type": "string",
                        "format": "binary",
                        "description": "A safetensors file with the tensor `embeddings`; for "
                        "multi-vectors also `offsets`. `Accept: application/octet-stream; "
                        "dtype=fp32|fp16|bf16` asks for it.",
                    }
                }
            }
        errors: dict[int | str, dict[str, Any]] = {
            status: {"model": ErrorAnswer, "description": description}
            for status, description in _ERRORS.items()
        }
        return {200: answered, **errors}


EMBEDDINGS_SPEC = RouteSpec(
    "embeddings",
    "Vectors of texts, images and PDFs",
    "Compatible with the Jina and OpenAI embeddings APIs.",
    EmbeddingsBody,
    EmbeddingsAnswer,
    is_binary=True,
)
RERANK_SPEC = RouteSpec(
    "rerank",
    "Documents ranked by how well they answer a query",
    "Late interaction (MaxSim) over texts and images; compatible with the Jina and Cohere rerank APIs.",
    RerankBody,
    RerankAnswer,
)
SCORE_SPEC = RouteSpec(
    "score",
    "Scores of pairs",
    "Late interaction (MaxSim) over texts and images, without ranking.",
    ScoreBody,
    ScoreAnswer,
)


def document(app: FastAPI, *, with_keys: bool) -> dict[str, Any]:
    """The whole document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        for spec in (EMBEDDINGS_SPEC, RERANK_SPEC, SCORE_SPEC):
            body = spec.body.model_json_schema(ref_template=_REF)
            components.update(body.pop("$defs", {}))
            components[spec.body.__name__] = body
        if with_keys:
            _ask_for_keys(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _ask_for_keys(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"key": []}]
    refused = {
        "description": _ERRORS[401],
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="ErrorAnswer")}}},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path in HEALTH_PATHS:
                operation["security"] = []
            else:
                operation["responses"].setdefault("401", refused)
