"""One request on its way: who sent it, and what has been learned of it for logs, metrics and traces."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from starlette.requests import Request

from serving.http.caller import ANONYMOUS, Caller
from serving.http.record import NO_INPUTS, NO_TOKENS, InputCounts, TokenCounts
from serving.http.stages import Stages


@dataclass(slots=True)
class Visit:
    """Made when a request arrives; filled in as it is understood.

    Attributes:
        request_id: the client's own, or a new one.
        client: address of the peer.
        stages: where its time goes.
        caller: whose key it carries.
        task: the task it asked for.
        inputs: the inputs it asked for.
        tokens: the tokens that were run.
        held: what it holds until its answer is on its way; None is nothing.
    """

    request_id: str
    client: str | None
    stages: Stages = field(default_factory=Stages)
    caller: Caller = ANONYMOUS
    task: str | None = None
    inputs: InputCounts = NO_INPUTS
    tokens: TokenCounts = NO_TOKENS
    held: AsyncExitStack | None = None

    @property
    def flow_name(self) -> str:
        """Who shares the engine with others: a key, or without keys a machine."""
        if self.caller is ANONYMOUS:
            return f"address {self.client}"
        return f"key {self.caller.name}"

    async def hold(self, place: AbstractAsyncContextManager[None]) -> None:
        """Enter `place`, to be left by `give_back`."""
        if self.held is None:
            self.held = AsyncExitStack()
        await self.held.enter_async_context(place)

    async def give_back(self) -> None:
        """Leave what is held; a second call does nothing."""
        held, self.held = self.held, None
        if held is not None:
            await held.aclose()


def visit_of(request: Request) -> Visit:
    """The visit that the edge has opened for `request`."""
    visit = request.state.visit
    assert isinstance(visit, Visit)
    return visit
