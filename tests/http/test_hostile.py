"""Several hundred hostile requests against one server, and what it is like afterwards."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from serving import ServerSettings
from serving.http.logs import configure_logs, take_back_logs
from tests.http.hostile import bodies, heads, images, pdfs, texts, urls
from tests.http.hostile.case import MARK, Case, Http, Raw
from tests.http.live import Live, live_server
from tests.http.raw import Connection, Reply

SETTINGS = ServerSettings(
    port=0,
    max_inputs=64,
    max_text_chars=65_536,
    max_body_bytes=2 << 20,
    max_image_bytes=256 << 10,
    max_pdf_bytes=256 << 10,
    max_pdf_pages=16,
    max_decoded_pixels=4_000_000,
    upload_timeout_s=1,
    fetch_timeout_s=5,
)

# What Python keeps after thousands of allocations; one of the bombs alone is more.
MAX_GROWN_BYTES = 192 << 20

CASES = [case for kind in (bodies, texts, images, pdfs, heads) for case in kind.cases()] + [
    *urls.cases(port=1)
]

# No directory of ours, module, address of an object, or line of a stack trace.
LEAKS = re.compile(
    rb"Traceback|File \\?\"|\.py\b|site-packages|/usr/|/home/|/root/|/tmp/|/opt/|0x[0-9a-f]{6}"
    rb"|<_io|PIL|pydantic|orjson|Pillow",
)

EXPECTED_CODES = {
    400: "INPUT_MODEL_NOT_FOUND",
    404: "RESOURCE_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION_ERROR",
}


@dataclass(frozen=True, slots=True)
class Siege:
    """One server that has had all of it."""

    live: Live
    replies: dict[str, Reply]
    grown_bytes: int
    log: io.StringIO


@pytest.fixture(scope="module")
def siege(merged_float32: Path) -> Iterator[Siege]:
    log = io.StringIO()
    configure_logs("INFO", "json", log)
    try:
        with live_server(merged_float32, SETTINGS) as live:
            port = live.client.base_url.port
            assert port is not None
            # What is loaded once: the processor of images, the reader of PDFs.
            for case in CASES:
                if case.name in ("image: one pixel", "pdf: a page"):
                    answer(live, port, case)
            process = psutil.Process()
            before = process.memory_info().rss
            with ThreadPoolExecutor(4) as pool:
                replies = dict(
                    zip(
                        (case.name for case in CASES),
                        pool.map(lambda case: answer(live, port, case), CASES),
                        strict=True,
                    )
                )
            yield Siege(live, replies, process.memory_info().rss - before, log)
    finally:
        take_back_logs()


def answer(live: Live, port: int, case: Case) -> Reply:
    match case.sent:
        case Http(content, path, headers):
            response = live.client.post(path, content=content(), headers=dict(headers))
            return Reply(response.status_code, dict(response.headers), response.content)
        case Raw(data):
            with Connection(port) as connection:
                connection.send(data())
                return connection.reply()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_hostile_request_gets_its_answer(siege: Siege, case: Case) -> None:
    reply = siege.replies[case.name]
    assert reply.status == case.status, reply.body[:500]
    assert not LEAKS.search(reply.body), reply.body[:500]
    assert MARK.encode() not in reply.body
    if case.status != 200:
        error = json.loads(reply.body)
        if case.status == 400 and isinstance(case.sent, Raw):
            # What is not HTTP at all is refused before there is a request.
            assert error["code"] == "BAD_REQUEST"
        else:
            assert error["code"] == (case.code or EXPECTED_CODES[case.status])
        assert error["detail"] == error["error"]["message"]
        assert (
            error["request_id"] == {k.lower(): v for k, v in reply.headers.items()}["x-request-id"]
        )
        if case.field is not None:
            assert case.field in [item["field"] for item in error["errors"]]


def test_the_names_of_hostile_requests_differ_and_there_are_hundreds() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 400


def test_the_server_serves_on(siege: Siege) -> None:
    assert siege.live.client.get("/health").status_code == 200
    response = siege.live.client.post(
        "/v1/embeddings", json={"model": "jina-embeddings-v4", "input": ["a", "b"]}
    )
    assert response.status_code == 200
    assert len(response.json()["data"]) == 2


def test_nothing_is_left_in_the_queue_or_in_memory(siege: Siege) -> None:
    figures = siege.live.client.get("/metrics").text
    for lane in siege.live.service.lanes.values():
        assert (lane.turns.admission.num_tokens, lane.turns.running_tokens) == (0, 0)
    assert re.search(r"^polyvec_bodies_bytes 0(\.0)?$", figures, re.MULTILINE), figures
    assert siege.grown_bytes < MAX_GROWN_BYTES


def test_the_log_tells_of_each_request_and_of_no_input(siege: Siege) -> None:
    lines = siege.log.getvalue().splitlines()
    records = [json.loads(line) for line in lines]
    assert sum(record["logger"] == "polyvec.request" for record in records) > 400
    assert [record for record in records if record["level"] in ("ERROR", "CRITICAL")] == []
    for line in lines:
        assert MARK not in line
        assert not LEAKS.search(line.encode()), line


def test_no_text_can_pretend_to_be_an_image(siege: Siege) -> None:
    texts_given = [texts.IMAGE_IN_TEXT, *texts.MARKERS, "Describe."]
    body = {
        "model": "jina-embeddings-v4",
        "input": texts_given,
        "return_multivector": True,
        "return_tokenized_input": True,
    }
    answered = siege.live.client.post("/v1/embeddings", json=body).json()
    assert answered["usage"].get("image_tokens") is None
    for text, item in zip(texts_given, answered["data"], strict=True):
        assert "".join(item["tokenized_input"]).endswith(text)
        assert not set(texts.MARKERS) & set(item["tokenized_input"])
        assert len(item["embeddings"]) == len(item["tokenized_input"])


def test_ids_of_special_tokens_are_the_text_they_spell(siege: Siege) -> None:
    lane = siege.live.service.lane("text-matching")
    special = lane.manifest.special_token_ids
    ids = [special.vision_start, special.image_pad, special.vision_end]
    spelled = "".join(texts.MARKERS[:3])
    as_ids, as_text = (
        siege.live.client.post(
            "/v1/embeddings", json={"model": "jina-embeddings-v4", "input": given}
        ).json()
        for given in ([ids], [spelled])
    )
    assert as_ids == as_text
    assert as_ids["usage"].get("image_tokens") is None


def test_a_text_has_8192_tokens_and_no_more(siege: Siege) -> None:
    def embed(text: str, **fields: object) -> httpx.Response:
        body = {"model": "jina-embeddings-v4", "input": [text]} | fields
        return siege.live.client.post("/v1/embeddings", json=body)

    prefix = embed("").json()["usage"]["total_tokens"]
    most = "1" * (8192 - prefix)
    assert embed(most).json()["usage"]["total_tokens"] == 8192
    refused = embed(most + "1")
    assert refused.status_code == 422
    assert "8193 tokens; at most 8192" in refused.json()["detail"]
    assert embed(most + "1", truncate=True).json()["usage"]["total_tokens"] == 8192
    assert embed(most + "1" * 50_000, truncate=True).json()["usage"]["total_tokens"] == 8192
