"""What every request that costs the engine something passes before it is looked at, and while it runs.

Its caller's limits, its body's size, its deadline, and whether its client is still there. Knows nothing of
what the body says.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from serving.deadline import deadline as time_limit
from serving.errors import QueueFullError
from serving.http.body import Bodies, Share
from serving.http.concurrency import Concurrency
from serving.http.edge import ClientGoneError
from serving.http.errors import HttpError
from serving.http.limits import Charge, RateLimits
from serving.http.visit import Visit, visit_of
from serving.turns import Flow


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was let in.

    Attributes:
        visit: what is known of it.
        body: all of its bytes.
        share: counts what it brings into memory beside them.
        charge: what its caller pays, and gets back when it fails.
        flow: whose turns it takes at whatever there is little of.
    """

    visit: Visit
    body: bytes
    share: Share
    charge: Charge
    flow: Flow


class Guard:
    """Lets requests in.

    Args:
        bodies: reads and counts bodies.
        limits: of requests and tokens a minute.
        concurrency: of requests at once.
        refusal: why a usual call of a caller finds no room, so that a body need not be read to be
            refused.
        timeout_s: deadline of a request, from its last byte.
    """

    def __init__(
        self,
        bodies: Bodies,
        limits: RateLimits,
        concurrency: Concurrency,
        *,
        refusal: Callable[[str], QueueFullError | None],
        timeout_s: float,
    ) -> None:
        self._bodies = bodies
        self._limits = limits
        self._concurrency = concurrency
        self._refusal = refusal
        self._timeout_s = timeout_s
        self._numbers = itertools.count()

    @asynccontextmanager
    async def admit(self, request: Request) -> AsyncIterator[Admitted]:
        """Let `request` in, until the block is left; leaving it by an error charges nothing.

        Raises:
            HttpError: a limit of the caller or the body, or the deadline.
            QueueFullError: there is no room for anything.
            ClientGoneError: the client hung up meanwhile.
        """
        visit = visit_of(request)
        flow = Flow(visit.flow_name, str(next(self._numbers)))
        if (full := self._refusal(flow.caller)) is not None:
            raise full
        # Given back with the answer's last piece, or before an error is answered.
        await visit.hold(self._concurrency.place(visit.caller))
        with self._bodies.share(flow.caller) as read, self._bodies.share(flow.caller) as share:
            async with self._limits.request(visit.caller) as charge:
                body = await self._bodies.read(request, read)
                async with self._watched(request):
                    yield Admitted(visit, body, share, charge, flow)

    @asynccontextmanager
    async def _watched(self, request: Request) -> AsyncIterator[None]:
        """Cancel the block when its time is up, or nobody waits for its answer any more."""
        is_gone = False
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:

                async def watch() -> None:
                    nonlocal is_gone
                    while (await request.receive())["type"] != "http.disconnect":
                        pass
                    is_gone = True
                    deadline.reschedule(loop.time())

                watcher = asyncio.create_task(watch())
                try:
                    with time_limit(self._timeout_s):
                        yield
                finally:
                    watcher.cancel()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            if is_gone:
                raise ClientGoneError from error
            raise HttpError(
                504,
                "SERVICE_TIMEOUT",
                f"The answer was not ready within {self._timeout_s:g} s. Send fewer inputs at once.",
            ) from error
