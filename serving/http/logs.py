"""What the server logs: one line a record, as JSON or as text, with nothing in it that a client sent.

At INFO and above no line holds an input, a key, a path or the message of an unexpected error; DEBUG adds
stack traces, which may. No text, wherever it comes from, can begin a line of its own. vLLM's loggers are
left as vLLM set them up. Knows no HTTP server.
"""

import copy
import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TextIO, assert_never

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from serving.http.record import RequestRecord
from serving.http.tracebacks import OUR_PACKAGES, describe, is_ours

LogFormat = Literal["json", "text"]

QUIET_ROUTES = frozenset({"/health", "/health/live", "/health/ready", "/ping", "/metrics"})
"""Routes that machines poll; their lines would bury the others."""

MAX_FOREIGN_CHARS = 500
# Ray, where it is imported, puts its own time on every record of the process.
_NOT_EXTRA = frozenset({*RESERVED_ATTRS, "taskName", "_ray_timestamp_ns"})
_AFTER_WORDS = re.compile(r"[^\w .,:-].*")
_WARNING_PATH = re.compile(r"^(?:[A-Za-z]:)?[^:]*[/\\](?=[^/\\:]+:\d+: \w+: )")

_request_log = logging.getLogger("polyvec.request")
_error_log = logging.getLogger("polyvec.error")


def configure_logs(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send polyvec's, uvicorn's and other libraries' records and Python's warnings to `stream`.

    Start uvicorn with `log_config=None`. Libraries are heard from WARNING on, whatever `level` is: below
    it some name the URLs they fetch. A second call replaces the first one's handler.

    Args:
        level: of polyvec's own and of uvicorn's records.
        log_format: one JSON object a line, or text for people.
        stream: where to; None is stderr.
    """
    take_back_logs()
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for name in (*OUR_PACKAGES, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers.clear()
        logger.propagate = True
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False  # It holds raw paths; uvicorn writes none when nobody would hear it.
    is_debug = logging.getLogger("polyvec").isEnabledFor(logging.DEBUG)
    root.addHandler(LineHandler(sys.stderr if stream is None else stream, log_format, is_debug))
    logging.captureWarnings(True)


def take_back_logs() -> None:
    """Write no more to the stream of `configure_logs`; levels stay."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LineHandler):
            root.removeHandler(handler)
    logging.captureWarnings(False)


def log_request(record: RequestRecord) -> None:
    """Log an answered request: ERROR for 500, WARNING for other 5xx, DEBUG for polled routes, else INFO."""
    level = _level_of(record)
    if not _request_log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "request_id": record.request_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "seconds": round(record.seconds, 6),
        "stages_ms": {time.stage.value: round(time.busy_s * 1e3, 3) for time in record.stage_times},
        "client": record.client,
        "key": record.key_name,
        "task": record.task,
        "num_inputs": record.inputs.total,
        "num_tokens": record.tokens.total,
        "response_bytes": record.response_bytes,
        "error_code": record.error_code,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    # As `Logger.log` does, but for the line of code that called it, which nobody is shown and which costs a walk up
    # the stack for every request.
    _request_log.handle(
        _request_log.makeRecord(_request_log.name, level, "", 0, "request", (), None, extra=present)
    )


def log_failure(message: str, request_id: str) -> None:
    """Log what the answer to `request_id` does not say; `message` holds nothing that a client sent."""
    _error_log.error("%s", message, extra={"request_id": request_id})


def log_unexpected(error: BaseException, request_id: str) -> None:
    """Log an error that nobody expected: its type and where it arose in our code; DEBUG adds all of it."""
    _error_log.error(
        "Unexpected error; set the log level to DEBUG for its message and stack trace.",
        extra={"request_id": request_id, "errors": describe(error)},
        exc_info=error if _error_log.isEnabledFor(logging.DEBUG) else None,
    )


def _level_of(record: RequestRecord) -> int:
    if record.route in QUIET_ROUTES:
        return logging.DEBUG
    if record.status == 500:
        return logging.ERROR
    return logging.WARNING if record.status > 500 else logging.INFO


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes one line a record, without what only DEBUG may show."""

    def __init__(self, stream: TextIO, log_format: LogFormat, is_debug: bool) -> None:
        super().__init__(stream)
        self._is_debug = is_debug
        self.setFormatter(_formatter(log_format))

    def format(self, record: logging.LogRecord) -> str:
        """`record` as one line; a stack trace in text is indented below it."""
        if record.name == _request_log.name:
            return super().format(record)  # It is ours, and only text and numbers.
        shown = copy.copy(record)
        shown.msg, shown.args = record.getMessage(), None
        if not self._is_debug:
            _withhold(shown)
        return super().format(shown)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say that a record was lost; logging's own way prints its arguments and a stack trace."""
        lost = logging.LogRecord(
            _error_log.name, logging.ERROR, "", 0, "A log record could not be written.", None, None
        )
        with suppress(OSError, ValueError):  # The stream itself is full, broken or closed.
            self.stream.write(self.format(lost) + self.terminator)


def _withhold(record: logging.LogRecord) -> None:
    """Take out of `record` what may hold an input or a path."""
    if record.exc_info and record.exc_info[1] is not None and not hasattr(record, "errors"):
        record.errors = describe(record.exc_info[1])
    record.exc_info = record.exc_text = record.stack_info = None
    if is_ours(record.name):
        return
    message = record.msg.strip().partition("\n")[0]
    if record.name == "asyncio":
        # What follows are reprs of callbacks, their arguments and their files.
        message = _AFTER_WORDS.sub("", message).strip()
    elif record.name == "py.warnings":
        message = _WARNING_PATH.sub("", message)
    record.msg = message[:MAX_FOREIGN_CHARS]


def _formatter(log_format: LogFormat) -> logging.Formatter:
    match log_format:
        case "json":
            return _JsonLines(
                ["asctime", "levelname", "name", "message"],
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                json_ensure_ascii=True,
            )
        case "text":
            return _TextLines()
        case _:
            assert_never(log_format)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """Fields of a record beyond its message; other libraries' are dropped, nobody knows what they hold."""
    if is_ours(record.name):
        return {name: value for name, value in vars(record).items() if name not in _NOT_EXTRA}
    errors = getattr(record, "errors", None)
    return {} if errors is None else {"errors": errors}


def _utc(created_s: float) -> str:
    moment = datetime.fromtimestamp(created_s, tz=UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds") + "Z"


class _JsonLines(JsonFormatter):
    """ASCII JSON: every line break, escape sequence and mark of Unicode leaves escaped."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _utc(record.created)

    def jsonify_log_record(self, log_data: dict[str, object]) -> str:
        try:
            line = orjson.dumps(log_data, default=str)
        except TypeError:
            line = b"\xff"
        # What is not ASCII orjson leaves as it is.
        return line.decode() if line.isascii() else json.dumps(log_data, default=str)

    def add_fields(
        self,
        log_data: dict[str, object],
        record: logging.LogRecord,
        message_dict: dict[str, object],
    ) -> None:
        for field in self._required_fields:
            log_data[self._get_rename(field)] = getattr(record, field)
        log_data.update(_extras(record))
        log_data.update(message_dict)


class _TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE name=value ...`; what is not printable leaves escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line = " ".join(
            (
                f"{_utc(record.created)} {record.levelname} {record.name}:",
                _printable(record.getMessage()),
                *(f"{name}={_value(value)}" for name, value in _extras(record).items()),
            )
        )
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line = "\n    ".join((line, *map(_printable, lines)))
        return line


def _value(value: object) -> str:
    """A value that ends where it seems to: bare if it is one plain word, JSON otherwise."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:@+-]+", value, re.ASCII):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)


def _printable(text: str) -> str:
    """`text` with line breaks, escape sequences, and marks that reorder text, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
