"""OpenTelemetry traces: one server span a request, one child span a stage, sent over OTLP/HTTP.

Spans are made when a request is done, from its record, so that tracing costs a request nothing on its way
and nothing at all when it is off. Has its own provider: the process's global one, which vLLM may use, is
neither read nor set. Knows no HTTP server.
"""

import logging
import os
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_SDK_DISABLED,
)
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    service_attributes,
)
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serving.errors import SettingsError
from serving.http.record import RequestRecord
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACES_PATH = "/v1/traces"
SHUTDOWN_TIMEOUT_S = 2.0
REMINDER_S = 600.0
MAX_TRACEPARENT_CHARS = 512


class Tracing:
    """Sends the traces of one server, or does nothing; made by `configure_tracing`."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None if provider is None else provider.get_tracer("polyvec")

    @property
    def is_on(self) -> bool:
        """Whether spans are sent anywhere."""
        return self._tracer is not None

    def report(self, record: RequestRecord) -> None:
        """Queue the spans of an answered request; never waits, and drops them when too many wait."""
        if self._tracer is None:
            return
        started_ns = record.stages.started_ns
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=_parent_of(record),
            kind=SpanKind.SERVER,
            attributes=_attributes_of(record),
            start_time=started_ns,
        )
        if span.is_recording():
            if record.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            within = set_span_in_context(span, Context())
            for stage in record.stage_times:
                child = self._tracer.start_span(
                    stage.stage.value,
                    context=within,
                    attributes={"polyvec.busy_seconds": stage.busy_s},
                    start_time=stage.started_ns,
                )
                child.end(stage.ended_ns)
        span.end(started_ns + int(record.seconds * 1e9))

    def shutdown(self, timeout_s: float = SHUTDOWN_TIMEOUT_S) -> None:
        """Send what waits, then stop; blocks for at most about `timeout_s`. A second call does nothing."""
        if self._provider is None:
            return
        # The library's own bound is 30 s and cannot be set from here; the thread dies with the process.
        flushing = threading.Thread(
            target=self._provider.shutdown, name="polyvec-traces", daemon=True
        )
        self._provider = self._tracer = None
        flushing.start()
        flushing.join(timeout_s)


def configure_tracing(settings: ServerSettings, version: str) -> Tracing:
    """Tracing to `settings.otlp_endpoint` or OpenTelemetry's own variables; off when none names a collector.

    Headers, timeout, compression, certificates, sampler, resource attributes and service name come from
    the `OTEL_*` variables that OpenTelemetry defines.

    Raises:
        SettingsError: the endpoint is not an http(s) URL.
    """
    endpoint = settings.otlp_endpoint
    is_named = any(
        os.environ.get(name)
        for name in (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
    )
    is_disabled = os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true"
    if is_disabled or (endpoint is None and not is_named):
        return Tracing()
    return Tracing(_provider(None if endpoint is None else _traces_url(endpoint), version))


def _provider(traces_url: str | None, version: str) -> "TracerProvider":
    # Most servers send no traces; these take longer to import than everything else here.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    no_metrics = NoOpMeterProvider()
    named = {
        service_attributes.SERVICE_NAME: "polyvec",
        service_attributes.SERVICE_VERSION: version,
    }
    provider = TracerProvider(
        resource=Resource.create({**named, **OTELResourceDetector().detect().attributes}),
        shutdown_on_exit=False,  # It would hold up an exit for 30 s; the server calls shutdown.
        meter_provider=no_metrics,
    )
    exporter = OTLPSpanExporter(traces_url, meter_provider=no_metrics)
    provider.add_span_processor(BatchSpanProcessor(exporter, meter_provider=no_metrics))
    _quieten()
    return provider


def _traces_url(endpoint: str) -> str:
    """Where a collector at `endpoint` takes traces, by the rule of `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise SettingsError(
            "otlp_endpoint must be the http(s) URL of an OpenTelemetry collector, such as "
            "http://collector:4318."
        )
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(TRACES_PATH) else path + TRACES_PATH).geturl()


def _parent_of(record: RequestRecord) -> Context:
    """The span that the caller named, or none; never one that happens to be open around us."""
    if record.traceparent is None or len(record.traceparent) > MAX_TRACEPARENT_CHARS:
        return Context()
    return TraceContextTextMapPropagator().extract(
        {"traceparent": record.traceparent}, context=Context()
    )


def _attributes_of(record: RequestRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        http_attributes.HTTP_REQUEST_METHOD: record.method,
        http_attributes.HTTP_ROUTE: record.route,
        http_attributes.HTTP_RESPONSE_STATUS_CODE: record.status,
        "polyvec.request_id": record.request_id,
        "polyvec.num_inputs": record.inputs.total,
        "polyvec.num_tokens": record.tokens.total,
    }
    if record.task is not None:
        attributes["polyvec.task"] = record.task
    if record.error_code is not None:
        attributes[error_attributes.ERROR_TYPE] = record.error_code
    return attributes


class _Rarely(logging.Filter):
    """Lets each message through once in `REMINDER_S`: a dead collector is news once, not every batch."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s.get(str(record.msg), -REMINDER_S) < REMINDER_S:
            return False
        self._last_s[str(record.msg)] = now_s
        return True


def _quieten() -> None:
    for name in (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.sdk._shared_internal",
    ):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Rarely) for known in logger.filters):
            logger.addFilter(_Rarely())
