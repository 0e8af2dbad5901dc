"""What is written to the log, and what never is."""

import asyncio
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator

import pytest
import uvloop

from serving.http.logs import LogFormat, configure_logs, log_request, log_unexpected
from serving.http.metrics import Metrics
from serving.http.record import InputCounts, RequestRecord, TokenCounts
from serving.http.stages import Stage, Stages

SECRET = "the patient's name is Ada"
PATH = "/srv/private/model.safetensors"
FORMATS: tuple[LogFormat, ...] = ("json", "text")
FORGERIES = (
    'a\n2026-01-01T00:00:00.000Z ERROR polyvec.request: forged key="x"',
    'a"}\r\n{"level":"ERROR","logger":"forged"}',
    "\x1b[2K\x1b[1Gforged",
    "a\u2028forged\u2029\x85\x0b\x0cforged",
    "a status=500 error_code=forged",
    "\u202eforged\u200b\x00\x9b",
    "\udc80 surrogate",
)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Logging is the process's; leave it as it was found."""
    root = logging.getLogger()
    names = ("polyvec", "serving", "pooling", "merge_tools")
    names += ("uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [root, *map(logging.getLogger, names)]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    logging.captureWarnings(False)
    for one, handlers, level, propagate in before:
        one.handlers[:] = handlers
        one.setLevel(level)
        one.propagate = propagate


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def record(
    *, status: int = 200, route: str = "/v1/embeddings", request_id: str = "r1", **given: str
) -> RequestRecord:
    stages = Stages()
    with stages.measure(Stage.PARSE):
        pass
    return RequestRecord(
        request_id=request_id,
        method=given.get("method", "POST"),
        route=route,
        status=status,
        seconds=0.25,
        stages=stages,
        client=given.get("client", "192.0.2.7"),
        key_name="search-team",
        task="retrieval",
        inputs=InputCounts(text=2, image=1),
        tokens=TokenCounts(text=20, image=100),
        response_bytes=1234,
        error_code=given.get("error_code"),
    )


def raise_unexpected() -> Exception:
    """An error from an error in a callback that our code called, all full of what must not be logged."""
    metrics = Metrics("1", (), ())
    metrics.watch_bodies(lambda: int(SECRET))
    try:
        try:
            metrics.render(PATH)
        except ValueError:
            metrics.engine_restarted(f"{SECRET} in {PATH}")
    except KeyError as error:
        return error
    raise AssertionError


def json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_one_json_object_with_what_an_operator_needs(stream: io.StringIO) -> None:
    configure_logs("INFO", "json", stream)
    log_request(record())
    (line,) = json_lines(stream)
    assert list(line)[:4] == ["time", "level", "logger", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    stages_ms = line.pop("stages_ms")
    assert isinstance(stages_ms, dict)
    assert list(stages_ms) == ["parse"]
    assert line == {
        "level": "INFO",
        "logger": "polyvec.request",
        "message": "request",
        "request_id": "r1",
        "method": "POST",
        "route": "/v1/embeddings",
        "status": 200,
        "seconds": 0.25,
        "client": "192.0.2.7",
        "key": "search-team",
        "task": "retrieval",
        "num_inputs": 3,
        "num_tokens": 120,
        "response_bytes": 1234,
    }


def test_a_request_is_one_line_of_text_for_people(stream: io.StringIO) -> None:
    configure_logs("INFO", "text", stream)
    log_request(record(status=429, error_code="RATE_TOKEN_LIMIT_EXCEEDED"))
    (line,) = stream.getvalue().splitlines()
    assert re.match(r"\S+Z INFO polyvec\.request: request request_id=r1 method=POST ", line)
    assert line.endswith(" response_bytes=1234 error_code=RATE_TOKEN_LIMIT_EXCEEDED")
    assert " status=429 " in line


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (200, "INFO"),
        (422, "INFO"),
        (499, "INFO"),
        (500, "ERROR"),
        (503, "WARNING"),
        (504, "WARNING"),
    ],
)
def test_the_level_of_a_request_follows_its_status(
    stream: io.StringIO, status: int, level: str
) -> None:
    configure_logs("INFO", "json", stream)
    log_request(record(status=status))
    assert [line["level"] for line in json_lines(stream)] == [level]


@pytest.mark.parametrize("route", ["/health", "/health/live", "/health/ready", "/ping", "/metrics"])
def test_routes_that_machines_poll_are_logged_at_debug_only(
    stream: io.StringIO, route: str
) -> None:
    configure_logs("INFO", "json", stream)
    log_request(record(route=route, status=503))
    assert stream.getvalue() == ""
    configure_logs("DEBUG", "json", stream)
    log_request(record(route=route, status=503))
    assert [line["level"] for line in json_lines(stream)] == ["DEBUG"]


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_unexpected_error_is_logged_by_type_and_place_alone(
    stream: io.StringIO, log_format: LogFormat
) -> None:
    configure_logs("INFO", log_format, stream)
    log_unexpected(raise_unexpected(), "r7")
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert "r7" in written
    assert re.search(
        r"\bKeyError in serving\.http\.metrics\.Metrics\.engine_restarted:\d+\"", written
    )
    assert re.search(
        r"\bValueError in tests\.http\.test_logs\.raise_unexpected\.<locals>\.<lambda>:\d+ < "
        r"serving\.http\.metrics\.Metrics\.render:\d+\"",
        written,
    )
    for withheld in ("Ada", "patient", PATH, "/srv", ".py", "Traceback"):
        assert withheld not in written


@pytest.mark.parametrize("log_format", FORMATS)
def test_debug_adds_the_stack_trace_without_letting_it_begin_a_line(
    stream: io.StringIO, log_format: LogFormat
) -> None:
    configure_logs("DEBUG", log_format, stream)
    log_unexpected(ValueError("one\n2026-01-01T00:00:00.000Z ERROR forged\x1b[1m"), "r7")
    log_unexpected(raise_unexpected(), "r8")
    written = stream.getvalue()
    assert SECRET in written
    assert "engine_restarted" in written
    assert "\x1b" not in written
    beginnings = [line for line in written.splitlines() if not line.startswith("    ")]
    assert len(beginnings) == 2


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_nothing_a_client_sends_can_forge_a_line_or_a_field(
    stream: io.StringIO, log_format: LogFormat, forgery: str
) -> None:
    configure_logs("INFO", log_format, stream)
    log_request(record(request_id=forgery, client=forgery, method=forgery))
    log_unexpected(KeyError(forgery), forgery)
    logging.getLogger("uvicorn.error").warning("Invalid header %s", forgery)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    if log_format == "json":
        documents = [json.loads(line) for line in lines]
        assert [document["logger"] for document in documents] == [
            "polyvec.request",
            "polyvec.error",
            "uvicorn.error",
        ]
        assert documents[0]["request_id"] == forgery.encode("utf-8", "replace").decode()
        assert documents[0]["method"] == "_OTHER"
    else:
        unquoted = [re.sub(r'"(?:[^"\\]|\\.)*"', '""', line) for line in lines[:2]]
        assert not any("forged" in line for line in unquoted)
        assert re.findall(r"status=\d+", unquoted[0]) == ["status=200"]


def test_what_a_client_sends_is_cut(stream: io.StringIO) -> None:
    configure_logs("INFO", "json", stream)
    log_request(record(request_id="x" * 100_000, client="y" * 100_000))
    assert len(stream.getvalue()) < 1000


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_errors_that_the_event_loop_reports_name_no_argument_and_no_file(
    stream: io.StringIO,
    log_format: LogFormat,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    def callback(text: str) -> None:
        raise ValueError(text)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(callback, SECRET)
        task = loop.create_task(asyncio.sleep(0, SECRET), name=SECRET)
        loop.call_exception_handler(
            {"message": "Task exception was never retrieved", "future": task}
        )
        await task

    configure_logs("INFO", log_format, stream)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    written = stream.getvalue()
    assert "Task exception was never retrieved" in written
    assert "Exception in callback" in written
    assert "ValueError in " in written
    assert "Ada" not in written
    assert ".py" not in written


def test_warnings_of_python_are_logged_without_the_path_of_their_file(
    stream: io.StringIO,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs("INFO", "json", stream)
        warnings.warn_explicit("too old", FutureWarning, PATH.replace("safetensors", "py"), 3)
    (line,) = json_lines(stream)
    assert line["logger"] == "py.warnings"
    assert line["message"] == "model.py:3: FutureWarning: too old"


def test_other_libraries_are_heard_from_warning_on_in_the_same_format(
    stream: io.StringIO,
) -> None:
    configure_logs("DEBUG", "json", stream)
    library = logging.getLogger("httpx")
    library.info("HTTP Request: GET https://example.com/%s", SECRET)
    library.warning("pool is full", extra={"url": SECRET})
    assert [line["message"] for line in json_lines(stream)] == ["pool is full"]
    assert SECRET not in stream.getvalue()


def test_fields_that_our_own_code_adds_to_a_record_are_written(stream: io.StringIO) -> None:
    configure_logs("INFO", "json", stream)
    logging.getLogger("serving.supervisor").warning("restarted", extra={"task": "code"})
    (line,) = json_lines(stream)
    assert (line["message"], line["task"]) == ("restarted", "code")


def test_uvicorn_is_heard_through_the_same_handler_and_its_access_log_is_off(
    stream: io.StringIO,
) -> None:
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler(stream))
    configure_logs("INFO", "json", stream)
    logging.getLogger("uvicorn.error").info("Started.", extra={"color_message": "\x1b[1mx"})
    assert [line["message"] for line in json_lines(stream)] == ["Started."]
    assert "color_message" not in json_lines(stream)[0]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_configuring_again_replaces_the_handler_and_leaves_others(stream: io.StringIO) -> None:
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    first = io.StringIO()
    configure_logs("INFO", "json", first)
    configure_logs("WARNING", "json", stream)
    log_request(record())
    log_request(record(status=500))
    assert first.getvalue() == ""
    assert len(json_lines(stream)) == 1
    assert foreign in logging.getLogger().handlers


def test_loggers_of_vllm_are_left_alone(stream: io.StringIO) -> None:
    engine = logging.getLogger("vllm")
    before = (engine.handlers[:], engine.level, engine.propagate)
    configure_logs("DEBUG", "json", stream)
    assert (engine.handlers, engine.level, engine.propagate) == before


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_record_that_cannot_be_written_says_so_and_nothing_of_what_it_held(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logs("INFO", log_format, stream)
    # pytest's own handlers on the root logger would raise on it.
    root = logging.getLogger()
    root.handlers[:] = root.handlers[-1:]
    logging.getLogger("httpx").warning("%d bytes", SECRET)
    (line,) = stream.getvalue().splitlines()
    assert "A log record could not be written." in line
    assert "Ada" not in line + capsys.readouterr().err


def test_a_closed_stream_costs_no_request(stream: io.StringIO) -> None:
    configure_logs("INFO", "json", stream)
    stream.close()
    log_request(record())
    assert stream.closed
