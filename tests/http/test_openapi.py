"""What /openapi.json says, held against what the server does: with data that fits it, and data that does not."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema

from serving import ServerSettings
from serving.http.caller import UNLIMITED
from serving.http.key_file import add_key
from tests.http.live import Live, live_server

COMPUTED = ["/v1/embeddings", "/v1/rerank", "/v1/score"]
READ = [
    "/v1/models",
    "/v1/models/{model_id}",
    "/health",
    "/health/live",
    "/health/ready",
    "/ping",
]


# What a description cannot say, such as which base64 is an image, may still refuse data that fits it.
MAY_REFUSE = ["2xx", "400", "401", "404", "422", "503"]


@dataclass(frozen=True, slots=True)
class Described:
    """A server, what it says of itself, and a header with a key where it wants one."""

    live: Live
    schema: BaseSchema
    headers: dict[str, str]


@contextmanager
def described(models: Path, key_file: Path | None) -> Iterator[Described]:
    key = None if key_file is None else add_key(key_file, "tester", UNLIMITED)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    limits = ServerSettings(
        port=0, max_inputs=64, fetch_urls=False, pdf_timeout_s=10, keys=key_file
    )
    with live_server(models, limits) as live:
        document = live.client.get("/openapi.json", headers=headers).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=live.url)
        schema.config.checks.positive_data_acceptance.expected_statuses = MAY_REFUSE
        yield Described(live, schema, headers)


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def server(
    request: pytest.FixtureRequest, merged_float32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Described]:
    with_keys = request.param == "with keys"
    key_file = tmp_path_factory.mktemp("keys") / "keys.json" if with_keys else None
    with described(merged_float32, key_file) as found:
        yield found


def tried(server: Described, path: str, mode: GenerationMode, num_examples: int) -> Counter[int]:
    """Send requests made from the description; every answer must be one that it describes.

    Returns:
        How often each status came.
    """
    if server.headers:
        num_examples //= 4  # a key changes who is let in, not what is said to them
    operation = server.schema[path]["POST" if path in COMPUTED else "GET"]
    seen: Counter[int] = Counter()

    @settings(
        max_examples=num_examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            # Any other name is refused before anything else is looked at.
            case.body["model"] = "jina-embeddings-v4"
        response = case.call(headers=server.headers)
        seen[response.status_code] += 1
        case.validate_response(response, headers=server.headers)

    send()
    return seen


def test_every_route_is_described(server: Described) -> None:
    paths = {result.ok().path for result in server.schema.get_all_operations()}
    assert paths == {*COMPUTED, *READ}


@pytest.mark.parametrize("path", COMPUTED)
def test_a_body_that_fits_gets_an_answer_that_is_described(server: Described, path: str) -> None:
    # One in thirty names its two sides as one of the pairs, where a third is taken elsewhere.
    seen = tried(server, path, GenerationMode.POSITIVE, 300 if path.endswith("score") else 40)
    assert set(seen) <= {200, 422}
    # With keys there are too few to be sure of one that is taken.
    assert seen[200] > 0 or server.headers
    assert seen.total() >= 10


@pytest.mark.parametrize("path", COMPUTED)
def test_a_body_that_does_not_fit_is_refused_as_described(server: Described, path: str) -> None:
    seen = tried(server, path, GenerationMode.NEGATIVE, 40)
    assert set(seen) <= {400, 401, 415, 422}
    assert seen[422] > 0


@pytest.mark.parametrize("path", READ)
def test_what_can_be_read_is_as_described(server: Described, path: str) -> None:
    seen = tried(server, path, GenerationMode.POSITIVE, 12)
    assert set(seen) == ({404} if "{" in path else {200})


def test_health_needs_no_key_and_says_so(server: Described) -> None:
    for path in READ:
        if path.startswith("/v1"):
            continue
        assert server.live.client.get(path).status_code == 200
        assert server.schema.raw_schema["paths"][path]["get"].get("security", []) == []
