"""The edge of the server: every request passes it on the way in, every answer and error on the way out.

It names the request, asks for a key, turns whatever goes wrong into an answer, and reports. It does not
know routes beyond their paths, nor bodies.
"""

import math
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import StoppingError
from serving.http.error_page import PAGE_HEADERS, page_of
from serving.http.errors import HttpError, body_of, from_polyvec, unexpected
from serving.http.keys import Door
from serving.http.logs import log_failure, log_request, log_unexpected
from serving.http.metrics import Metrics, Rejection
from serving.http.other_sites import OtherSites
from serving.http.record import OTHER, RequestRecord
from serving.http.tracing import Tracing
from serving.http.visit import Visit

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# On every answer that does not say otherwise.
_USUAL = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
# nginx's status for a client that hung up; it is only reported, nobody is there to read it.
_CLIENT_GONE = 499

_REJECTIONS = {
    "RATE_REQUEST_LIMIT_EXCEEDED": Rejection.REQUEST_LIMIT,
    "RATE_TOKEN_LIMIT_EXCEEDED": Rejection.TOKEN_LIMIT,
    "RATE_CONCURRENCY_LIMIT_EXCEEDED": Rejection.CONCURRENCY_LIMIT,
    "AUTH_MISSING_API_KEY": Rejection.AUTHENTICATION,
    "AUTH_INVALID_API_KEY": Rejection.AUTHENTICATION,
    "AUTH_INVALID_FORMAT": Rejection.AUTHENTICATION,
    "REQUEST_TOO_LARGE": Rejection.BODY_TOO_LARGE,
    "REQUEST_TIMEOUT": Rejection.UPLOAD_TIMEOUT,
    "BODIES_FULL": Rejection.BODIES_FULL,
    "QUEUE_FULL": Rejection.QUEUE_FULL,
    "ENGINE_UNAVAILABLE": Rejection.ENGINE_DOWN,
    "LIMITS_UNAVAILABLE": Rejection.LIMITS_UNAVAILABLE,
}


class ClientGoneError(Exception):
    """The client hung up; there is nobody to answer."""


@dataclass(slots=True)
class Draining:
    """Whether the server is on its way out: still answering, but asking clients to go elsewhere.

    Attributes:
        is_on: it is.
        refuses: new requests but those for health are refused, where nobody closes the port to them.
        num_open: requests that are not answered yet.
    """

    is_on: bool = False
    refuses: bool = False
    num_open: int = 0


@dataclass(frozen=True, slots=True)
class Reports:
    """Where a finished request is reported to, besides the log."""

    metrics: Metrics
    tracing: Tracing


class _Answer:
    """Watches what is sent, and puts the server's own headers on it."""

    def __init__(self, send: Send, visit: Visit, draining: Draining) -> None:
        self._send = send
        self._visit = visit
        self._draining = draining
        self.status: int | None = None
        self.num_bytes = 0
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            names = {name for name, _ in given}
            ours = [(b"x-request-id", self._visit.request_id.encode("latin-1"))]
            ours += [pair for pair in _USUAL if pair[0] not in names]
            if self._draining.is_on and b"connection" not in names:
                ours.append((b"connection", b"close"))
            message = {**message, "headers": [*given, *ours]}
        elif message["type"] == "http.response.body":
            self.num_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        await self._send(message)


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        door: Door,
        open_paths: Collection[str],
        browser_paths: Collection[str],
        paths: Mapping[str, str],
        reports: Reports,
        draining: Draining,
        other_sites: OtherSites,
    ) -> None:
        """Around `app`.

        Args:
            app: what answers.
            door: tells whose key a request carries, or refuses it.
            open_paths: paths that need no key.
            browser_paths: paths that people open; a browser asks them for the key, as a password, and is
                shown errors as a page.
            paths: all paths, and what each is reported as; others are reported as "other".
            reports: where to report.
            draining: set by the server on its way out.
            other_sites: refuses what their pages ask for.
        """
        self._app = app
        self._door = door
        self._open_paths = frozenset(open_paths)
        self._browser_paths = frozenset(browser_paths)
        self._paths = dict(paths)
        self._reports = reports
        self._draining = draining
        self._other_sites = other_sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything else is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(_request_id(headers), scope["client"][0] if scope.get("client") else None)
        scope.setdefault("state", {})["visit"] = visit
        answer = _Answer(send, visit, self._draining)
        failure: HttpError | None = None
        self._draining.num_open += 1
        try:
            with self._reports.metrics.in_progress():
                failure = await self._answered(scope, receive, answer, visit, headers)
        finally:
            self._draining.num_open -= 1
            try:
                await visit.give_back()
            finally:
                self._report(scope, headers, visit, answer, failure)

    async def _answered(
        self, scope: Scope, receive: Receive, answer: _Answer, visit: Visit, headers: Headers
    ) -> HttpError | None:
        try:
            if scope["path"] not in self._open_paths:
                self._other_sites.check(scope["method"], headers)
                visit.caller = self._door.authenticate(headers.get("authorization"))
                if self._draining.refuses:
                    raise StoppingError
            await self._app(_as_get(scope), receive, answer.send)
            return None
        except (ClientGoneError, ClientDisconnect):
            answer.status = _CLIENT_GONE
            return None
        except Exception as error:  # noqa: BLE001 - the one place where whatever went wrong becomes an answer
            failure = from_polyvec(error)
            if failure is None:
                log_unexpected(error, visit.request_id)
                failure = unexpected()
            elif failure.for_log is not None:
                log_failure(failure.for_log, visit.request_id)
        # Who reads the error may ask again at once.
        await visit.give_back()
        is_for_people = scope["path"] in self._browser_paths
        if failure.status == 401 and is_for_people:
            failure.headers["WWW-Authenticate"] = 'Basic realm="polyvec"'
        if answer.status is None:
            is_page = is_for_people and "text/html" in headers.get("accept", "")
            await _send_error(answer, failure, visit.request_id, is_page=is_page)
        elif not answer.is_complete:
            # Half an answer must not look whole: uvicorn closes the connection on this.
            raise failure
        return failure

    def _report(
        self,
        scope: Scope,
        headers: Headers,
        visit: Visit,
        answer: _Answer,
        failure: HttpError | None,
    ) -> None:
        record = RequestRecord(
            request_id=visit.request_id,
            method=scope["method"],
            route=self._paths.get(scope["path"], OTHER),
            # Nothing was sent when the server itself was cancelled.
            status=answer.status or _CLIENT_GONE,
            seconds=visit.stages.elapsed_s,
            stages=visit.stages,
            client=visit.client,
            key_name=visit.caller.name,
            task=visit.task,
            inputs=visit.inputs,
            tokens=visit.tokens,
            response_bytes=answer.num_bytes,
            error_code=None if failure is None else failure.code,
            traceparent=headers.get("traceparent"),
        )
        if failure is not None and (reason := _REJECTIONS.get(failure.reason)) is not None:
            self._reports.metrics.reject(reason)
        self._reports.metrics.observe_request(record)
        self._reports.tracing.report(record)
        log_request(record)


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET is; uvicorn leaves the body out."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


async def _send_error(
    answer: _Answer, failure: HttpError, request_id: str, *, is_page: bool
) -> None:
    body = (page_of if is_page else body_of)(failure, request_id)
    kind = PAGE_HEADERS if is_page else {"Content-Type": "application/json"}
    headers = {**kind, "Content-Length": str(len(body)), **failure.headers}
    if failure.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(failure.retry_after_s)))
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await answer.send({"type": "http.response.start", "status": failure.status, "headers": raw})
    await answer.send({"type": "http.response.body", "body": body})
