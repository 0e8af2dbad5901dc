"""How a server is started: what it binds, takes, fetches, queues and reports; every default once.

A superset of the engine's settings, so that flags and environment of `polyvec serve` derive from one
class. It does not know FastAPI, uvicorn or vLLM.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from serving.settings.documents import DocumentSettings
from serving.settings.engine import MIB, PREFIX, Count, Seconds
from serving.settings.origins import Origin

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_list(value: object) -> object:
    """`a,b`, as in the environment, or a list of such, as from repeated flags, in its parts."""
    match value:
        case str():
            return [part.strip() for part in value.split(",") if part.strip()]
        case list():
            parts = [split_list(item) if isinstance(item, str) else [item] for item in value]
            return [part for found in parts if isinstance(found, list) for part in found]
        case _:
            return value


class ServerSettings(DocumentSettings):
    """Settings of `polyvec serve`, frozen; unset fields come from `POLYVEC_*` in the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    reserved_cores: Annotated[int, Field(ge=0)] = 1
    """On a CPU, cores that the model leaves to the server; it keeps at least one."""

    # Where and what

    host: str = "127.0.0.1"
    """Address to bind; without keys only a loopback address is taken."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to bind; 0 takes a free one and prints it."""

    model_name: Annotated[str, Field(min_length=1)] = "jina-embeddings-v4"
    """Name that requests give as `model`; `NAME:TASK` chooses a task as well."""

    default_task: str | None = None
    """Task of requests that name none; None is "text-matching", as in the public API."""

    playground: bool = False
    """Serve `/playground`, a page to search pages with and to see why they match; wants keys as all does."""

    # Who

    keys: Path | None = None
    """File of API keys, made by `polyvec keys add`; read again when it changes."""

    allow_no_keys: bool = False
    """Let a server without keys bind an address that is not loopback."""

    metrics_without_key: bool = False
    """Answer `/metrics` to callers without a key."""

    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split_list)] = ()
    """Origins whose pages may call from a browser, with commas between, as `https://app.example.com`; `*` is any.
    A key is sent as a Bearer token then, and whoever opens such a page can read it."""

    limits_storage: SecretStr = SecretStr("memory://")
    """Where rate limits are counted: `memory://`, or `redis://...` to share them between servers."""

    # What a request may hold

    max_inputs: Count = 2048
    """Inputs of one request."""

    max_text_tokens: Count = 8192
    """Tokens of one text, prefix included; longer texts are refused, or cut with `truncate`."""

    max_multivector_tokens: Count = 262_144
    """Tokens of one request that asks for multi-vectors, or that ranks with them; each is a vector."""

    max_text_chars: Count = 4 * MIB
    """Characters of one text: what is tokenised before its tokens can be counted."""

    max_request_chars: Count = 32 * MIB
    """Characters of all texts of one request; those of token ids count as the text they stand for."""

    max_body_bytes: Count = 64 * MIB
    """Bytes of one request body."""

    max_bodies_bytes: Count = 512 * MIB
    """Bytes of all bodies, fetched files, rendered pages and unread answers in memory at once; past it
    requests are answered 503, but for callers that have less than their share of them; past twice as many, all."""

    max_image_bytes: Count = 8 * MIB
    """Bytes of one encoded image."""

    max_decoded_pixels: Count = 64 * 1024 * 1024
    """Pixels of one decoded image, before resizing."""

    # Fetching images by URL. Without NoDecode, lists in the environment would have to be JSON.

    fetch_urls: bool = True
    """Fetch images and PDFs that are given as http(s) URLs."""

    fetch_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = ()
    """Only these hosts, with commas between; `*.example.com` is all below it; empty is every public host."""

    fetch_private_networks: Annotated[
        tuple[Network, ...], NoDecode, BeforeValidator(split_list)
    ] = ()
    """Networks, with commas between, that are fetched from although not public, as `10.1.0.0/16`."""

    fetch_timeout_s: Seconds = 10.0
    """Time for one fetch, redirects included."""

    fetch_redirects: Annotated[int, Field(ge=0)] = 3
    """Redirects followed; each target is checked as the first one was."""

    max_fetches: Count = 32
    """Fetches at once, over all requests."""

    # Time and load

    request_timeout_s: Seconds = 300.0
    """A request's deadline, from its last byte to its answer being ready; then 504. A client may take as
    long again to read the answer."""

    upload_timeout_s: Seconds = 60.0
    """Time for a client to send a whole request."""

    keep_alive_s: Seconds = 75.0
    """An idle connection is closed after this."""

    max_connections: Count = 8192
    """Open connections; the next ones are closed at once."""

    max_queued_tokens: Count = 1_048_576
    """Tokens waiting or running, for each task; past it requests are answered 503 with Retry-After."""

    max_queue_s: Seconds = 30.0
    """Time that what waits may take at the speed seen lately, for each task; past it 503 as well."""

    max_running_tokens: Count | None = None
    """Tokens handed to one engine at once; None is four of its steps (`max_batch_tokens`)."""

    # Staying up

    drain_delay_s: Annotated[float, Field(ge=0)] = 1.0
    """After SIGTERM, time in which `/health/ready` says no and requests are still taken."""

    drain_timeout_s: Seconds = 60.0
    """After that, time for accepted requests to be answered."""

    # Reporting

    server_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What the server logs; DEBUG adds stack traces, which may hold paths."""

    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or text for people."""

    otlp_endpoint: str | None = None
    """Where OpenTelemetry traces go (OTLP over HTTP); None is `OTEL_EXPORTER_OTLP_ENDPOINT`, or nowhere."""

    @property
    def longest_request_s(self) -> float:
        """A request's life at most: sending it, its deadline, and as long again to read its answer."""
        return self.upload_timeout_s + 2 * self.request_timeout_s

    @model_validator(mode="after")
    def _require_keys(self) -> Self:
        if self.keys is None and not self.allow_no_keys and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and there are no keys. "
                "Make one (polyvec keys add NAME --keys FILE) and pass --keys FILE; "
                "behind a gateway that checks callers itself, pass --allow-no-keys."
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
