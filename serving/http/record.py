"""What is known of one request once it is answered: the one thing that logs, metrics and traces read.

Holds no input, no vector, no path and no key; what a client could choose in it is bounded here.
"""

from dataclasses import dataclass, field

from serving.http.stages import Stages, StageTime

OTHER = "other"
"""Route of a request that no route took; its path is nobody's business but the client's."""

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
OTHER_METHOD = "_OTHER"  # OpenTelemetry's name for it
MAX_CHARS = 128


@dataclass(frozen=True, slots=True)
class InputCounts:
    """Inputs of a request by kind; `tokens` are those that came as token ids."""

    text: int = 0
    image: int = 0
    page: int = 0
    tokens: int = 0

    @property
    def total(self) -> int:
        """All inputs."""
        return self.text + self.image + self.page + self.tokens


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens that were run, by what they stood for."""

    text: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return self.text + self.image


NO_INPUTS = InputCounts()
NO_TOKENS = TokenCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One answered request.

    Attributes:
        request_id: as in the answer's header and in an error's body.
        method: HTTP method; one that HTTP does not define becomes `_OTHER`.
        route: the route's template, such as `/v1/embeddings`, or `other`.
        status: HTTP status; 499 where the client went away first.
        seconds: from the request's first byte to the answer's last.
        stages: where that time went.
        client: address of the peer; None where there is none, as on a Unix socket.
        key_name: name of the caller's key, never the key.
        task: task that was asked for; None where the route has none or the request did not get so far.
        inputs: inputs that were asked for.
        tokens: tokens that were run.
        response_bytes: length of the answer's body.
        error_code: `code` of the error's body; None for success.
        traceparent: the request's header of this name, as it came.
        stage_times: `stages` when the record was made; all readers see the same.
    """

    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    stages: Stages
    client: str | None = None
    key_name: str | None = None
    task: str | None = None
    inputs: InputCounts = NO_INPUTS
    tokens: TokenCounts = NO_TOKENS
    response_bytes: int = 0
    error_code: str | None = None
    traceparent: str | None = None
    stage_times: tuple[StageTime, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage_times", tuple(self.stages.times()))
        object.__setattr__(self, "request_id", _bounded(self.request_id))
        if self.client is not None:
            object.__setattr__(self, "client", _bounded(self.client))
        if self.method not in METHODS:
            object.__setattr__(self, "method", OTHER_METHOD)


def _bounded(text: str) -> str:
    """`text` cut to `MAX_CHARS`, and encodable: a lone surrogate would cost a whole batch of spans."""
    return text[:MAX_CHARS].encode("utf-8", "replace").decode("utf-8")
