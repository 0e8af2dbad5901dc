"""The spans that a real OTLP/HTTP receiver on loopback gets."""

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.errors import SettingsError
from serving.http.record import InputCounts, RequestRecord, TokenCounts
from serving.http.stages import Stage, Stages
from serving.http.tracing import Tracing, configure_tracing
from serving.settings import ServerSettings

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Collector:
    """Takes what is posted to /v1/traces; answers 200 at once, or when `may_answer` is set."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.got_one = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                collector.bodies.append(body)
                collector.got_one.set()
                collector.may_answer.wait()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def resource(self) -> dict[str, object]:
        (got,) = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans
        return values(got.resource.attributes)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def values(attributes: "list[KeyValue]") -> dict[str, object]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


@pytest.fixture(autouse=True)
def _no_otel_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "HEADERS", "TIMEOUT", "COMPRESSION"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # What one test made the library say must not keep it silent in the next.
    for name in (EXPORTER_LOG, "opentelemetry.sdk._shared_internal"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def record(*, status: int = 200, traceparent: str | None = None, **given: str) -> RequestRecord:
    stages = Stages()
    for stage in (Stage.PARSE, Stage.ENGINE):
        with stages.measure(stage):
            pass
    return RequestRecord(
        request_id=given.get("request_id", "r1"),
        method=given.get("method", "POST"),
        route="/v1/embeddings",
        status=status,
        seconds=stages.elapsed_s,
        stages=stages,
        client="192.0.2.7",
        key_name="search-team",
        task="retrieval",
        inputs=InputCounts(text=3),
        tokens=TokenCounts(text=20, image=14),
        error_code=given.get("error_code"),
        traceparent=traceparent,
    )


def traced(collector: Collector, *records: RequestRecord) -> list[Span]:
    tracing = configure_tracing(ServerSettings(otlp_endpoint=collector.url), "1.2.3")
    for one in records:
        tracing.report(one)
    tracing.shutdown()
    return collector.spans


def server_spans(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]


def test_a_request_is_a_server_span_with_a_child_for_each_stage(collector: Collector) -> None:
    spans = traced(collector, record())
    (request,) = server_spans(spans)
    children = [span for span in spans if span is not request]
    assert request.name == "POST /v1/embeddings"
    assert request.parent_span_id == b""
    assert values(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "polyvec.request_id": "r1",
        "polyvec.task": "retrieval",
        "polyvec.num_inputs": 3,
        "polyvec.num_tokens": 34,
    }
    assert [span.name for span in children] == ["parse", "engine"]
    for child in children:
        assert child.trace_id == request.trace_id
        assert child.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= child.start_time_unix_nano
        assert child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= request.end_time_unix_nano
        assert values(child.attributes).keys() == {"polyvec.busy_seconds"}
    assert collector.paths == ["/v1/traces"]


def test_the_trace_of_the_caller_is_continued(collector: Collector) -> None:
    spans = traced(collector, record(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01"))
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert [span.parent_span_id.hex() for span in server_spans(spans)] == [PARENT_ID]


def test_what_the_caller_does_not_sample_is_not_sent(collector: Collector) -> None:
    unsampled = record(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
    spans = traced(collector, unsampled, record(request_id="sampled"))
    assert [values(span.attributes)["polyvec.request_id"] for span in server_spans(spans)] == [
        "sampled"
    ]


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        "00-zz-11-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        "\x00\x1b\u2028",
        f"00-{TRACE_ID}-{PARENT_ID}-01-{'x' * 100_000}",
    ],
)
def test_a_traceparent_that_is_none_begins_a_trace_and_logs_nothing(
    collector: Collector, caplog: pytest.LogCaptureFixture, traceparent: str
) -> None:
    (request,) = server_spans(traced(collector, record(traceparent=traceparent)))
    assert request.parent_span_id == b""
    assert request.trace_id.hex() != TRACE_ID
    assert caplog.records == []


def test_errors_of_the_server_are_marked_and_errors_of_callers_are_not(
    collector: Collector,
) -> None:
    spans = server_spans(
        traced(
            collector,
            record(status=503, error_code="SERVICE_UNAVAILABLE"),
            record(status=422, error_code="VALIDATION_ERROR"),
        )
    )
    assert [span.status.code for span in spans] == [
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert [values(span.attributes)["error.type"] for span in spans] == [
        "SERVICE_UNAVAILABLE",
        "VALIDATION_ERROR",
    ]
    assert not any(span.events for span in spans)


def test_what_no_encoding_can_hold_costs_no_span(collector: Collector) -> None:
    spans = traced(collector, record(request_id="\udc80", method="\udc80"), record())
    assert [span.name for span in server_spans(spans)] == [
        "_OTHER /v1/embeddings",
        "POST /v1/embeddings",
    ]


def test_the_service_is_polyvec_unless_the_environment_names_it(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(collector, record())
    assert collector.resource["service.name"] == "polyvec"
    assert collector.resource["service.version"] == "1.2.3"
    collector.bodies.clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    traced(collector, record())
    assert collector.resource["service.name"] == "search"
    assert collector.resource["deployment.environment.name"] == "test"


@pytest.mark.parametrize(
    ("variable", "path"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces")],
)
def test_the_environment_may_name_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, collector.url + path)
    tracing = configure_tracing(ServerSettings(), "1")
    tracing.report(record())
    tracing.shutdown()
    assert collector.paths == ["/v1/traces"]


@pytest.mark.parametrize("suffix", ["/", "/v1/traces", "/v1/traces/"])
def test_the_collector_may_be_given_with_or_without_the_path_of_traces(
    collector: Collector, suffix: str
) -> None:
    tracing = configure_tracing(ServerSettings(otlp_endpoint=collector.url + suffix), "1")
    tracing.report(record())
    tracing.shutdown()
    assert collector.paths == ["/v1/traces"]


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "grpc://collector", "http://", "http://[x", ""]
)
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="otlp_endpoint must be the http"):
        configure_tracing(ServerSettings(otlp_endpoint=endpoint), "1")


def test_tracing_is_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = threading.active_count()
    tracing = configure_tracing(ServerSettings(), "1")
    tracing.report(record())
    tracing.shutdown()
    assert not tracing.is_on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not configure_tracing(ServerSettings(otlp_endpoint="http://127.0.0.1:1"), "1").is_on
    assert threading.active_count() == threads


def test_the_global_provider_is_neither_set_nor_read(collector: Collector) -> None:
    before = trace._TRACER_PROVIDER
    ambient = trace.NonRecordingSpan(
        trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    with trace.use_span(ambient):
        spans = traced(collector, record())
    assert before is trace._TRACER_PROVIDER
    assert [span.parent_span_id for span in server_spans(spans)] == [b""]


def test_a_collector_that_never_answers_holds_up_neither_requests_nor_the_exit(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.may_answer.clear()
    tracing = configure_tracing(ServerSettings(otlp_endpoint=collector.url), "1")
    for _ in range(512):
        tracing.report(record())
    assert collector.got_one.wait(60)
    for _ in range(1500):
        tracing.report(record())
    tracing.shutdown(timeout_s=0.05)
    # Its first post is still unanswered: nobody has waited for it.
    assert len(collector.bodies) == 1
    assert not tracing.is_on
    # And that most spans found no room is said once.
    assert [one.getMessage() for one in caplog.records] == ["Queue full, dropping Span."]
    collector.may_answer.set()
    for thread in threading.enumerate():
        if thread.name == "polyvec-traces":
            thread.join()


def test_a_collector_that_is_not_there_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    gone = Collector()
    gone.close()
    for _ in range(3):
        tracing = configure_tracing(ServerSettings(otlp_endpoint=gone.url), "1")
        tracing.report(record())
        tracing.shutdown()
    assert [one.name for one in caplog.records] == [EXPORTER_LOG]


def test_after_shutdown_nothing_is_reported_and_nothing_fails(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracing: Tracing = configure_tracing(ServerSettings(otlp_endpoint=collector.url), "1")
    tracing.shutdown()
    tracing.shutdown()
    tracing.report(record())
    assert collector.bodies == []
    assert caplog.records == []
