"""Inputs to vectors for one task: prompts and engine, in input order.

The one path that the Python API, HTTP and batch jobs share. Knows the Engine protocol, not its
implementations; knows no wire format.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

from pooling import Span
from serving.engine.protocol import Engine, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import InputError, TaskError
from serving.images import ImageLimits, PatchGrid, measure_image, patch_grid
from serving.inputs import Input, PageImage, Text
from serving.manifest import Manifest
from serving.places import NOBODY, Places
from serving.preparing import in_preparing_thread, pieces
from serving.prompts import Prompter
from serving.together import together
from serving.turns import Flow, TurnQueue

# About a thousand tokens: a millisecond.
_QUICK_CHARS = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What to do with every input of one call.

    Attributes:
        want: single vectors, multi-vectors or both.
        prompt_name: prefix of the texts; None is the manifest's default.
        max_length: tokens a text may have, prefix included; None is the manifest's bound.
        too_long: what becomes of a longer text: its head is kept, or it is refused.
        max_pixels: area an image is reduced to; None is the manifest's bound.
    """

    want: Want
    prompt_name: str | None = None
    max_length: int | None = None
    too_long: Literal["cut", "refuse"] = "cut"
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        numbers = {
            "max_length": self.max_length,
            "max_pixels": self.max_pixels,
            "dim": self.want.dim,
        }
        for name, value in numbers.items():
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise TaskError(f"{name} must be an int, not {value!r}.")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Inputs as the engine will take them, and what they cost.

    Attributes:
        prompts: in input order; what cannot be embedded is an error in its place.
        num_tokens: of each prompt, image tokens included; 0 for an error.
        grids: of each image that was measured; None for everything else.
        request: what to do with them.
    """

    prompts: tuple[Prompt | InputError, ...]
    num_tokens: tuple[int, ...]
    grids: tuple[PatchGrid | None, ...]
    request: Request

    @classmethod
    def joined(cls, parts: "Sequence[Prepared]") -> "Prepared":
        """Neighbours of one call, at least one, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            prompts=tuple(prompt for part in parts for prompt in part.prompts),
            num_tokens=tuple(size for part in parts for size in part.num_tokens),
            grids=tuple(grid for part in parts for grid in part.grids),
            request=parts[0].request,
        )

    def raise_first(self) -> None:
        """Refuse the whole call for its first bad input, before any of it reaches the engine.

        Raises:
            InputError: an input cannot be embedded; names its position.
        """
        for index, prompt in enumerate(self.prompts):
            if isinstance(prompt, InputError):
                raise prompt.at(index)

    @property
    def total_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(self.num_tokens)


class Pipeline:
    """Embeds inputs with one engine.

    Args:
        engine: computes the vectors.
        prompter: makes the prompts.
        limits: what an image may be, checked before the engine sees it; None leaves that to the engine.
        turns: where calls wait for their turns at the engine; None sends everything at once.
        preparing: where they wait for their turns at tokenising; None does a call in one go.
    """

    def __init__(
        self,
        engine: Engine,
        prompter: Prompter,
        *,
        limits: ImageLimits | None = None,
        turns: TurnQueue | None = None,
        preparing: Places | None = None,
    ) -> None:
        self._engine = engine
        self._preparing = preparing
        self._prompter = prompter
        self._limits = limits
        self._turns = turns

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        return self._prompter.manifest

    def check(self, request: Request) -> None:
        """Refuse a request that no input could satisfy, before anything is computed.

        Raises:
            TaskError: unknown prompt name, a bound too small for anything, or a dimension outside
                1..hidden.
        """
        self._prompter.prefix(request.prompt_name)
        if request.max_length is not None and request.max_length < 1:
            raise TaskError(f"max_length must be at least 1, not {request.max_length}.")
        smallest = self.manifest.image.token_edge**2
        if request.max_pixels is not None and request.max_pixels < smallest:
            raise TaskError(
                f"max_pixels must be at least {smallest}, the area of one image token, "
                f"not {request.max_pixels}."
            )
        if request.want.dim is not None and not 1 <= request.want.dim <= self.manifest.hidden_size:
            raise TaskError(
                f"Vectors have 1 to {self.manifest.hidden_size} dimensions, not {request.want.dim}."
            )

    async def embed(self, inputs: Sequence[Input | InputError], request: Request) -> list[Outcome]:
        """Embed `inputs` in order; one that is bad, or came in as an error, fails alone.

        Raises:
            TaskError: no input could satisfy the request.
            EngineError: the engine cannot answer.
        """
        return await self.run(await self.prepare(inputs, request))

    async def prepare(
        self, inputs: Sequence[Input | InputError], request: Request, flow: Flow | None = None
    ) -> Prepared:
        """Tokenise texts and measure images; nothing reaches the engine.

        Args:
            inputs: errors stay in their places.
            request: what to do with them.
            flow: whose turns at tokenising these are, with `preparing`.

        Raises:
            TaskError: no input could satisfy the request.
            QueueFullError: with a flow, there are more tokens than have room.
        """
        self.check(request)
        if _is_quick(inputs):
            return self._prepare(inputs, request)
        # Tokenising uses all cores outside the interpreter's lock, and measuring reads files.
        if self._preparing is None or flow is None:
            return await in_preparing_thread(lambda: self._prepare(inputs, request))
        parts: list[Prepared] = []
        for piece in pieces(inputs, _num_chars):
            async with self._preparing.taken(flow):
                part = await in_preparing_thread(partial(self._prepare, inputs[piece], request))
            parts.append(part)
            self._check_room(flow, sum(part.total_tokens for part in parts))
        return Prepared.joined(parts)

    async def prepare_chunks(
        self, chunks: Sequence[Text], request: Request, flow: Flow | None = None
    ) -> Prepared:
        """Late chunking: all `chunks` as one prompt, with a span for each.

        Raises:
            TaskError: no input could satisfy the request.
            InputError: a chunk has no tokens, or none is left of it after cutting.
        """
        self.check(request)
        bound = self._max_length(request.max_length)
        async with (
            nullcontext() if self._preparing is None else self._preparing.taken(flow or NOBODY)
        ):
            prompt = await in_preparing_thread(
                lambda: self._prompter.chunked_prompt(
                    chunks, prompt_name=request.prompt_name, enough=bound
                )
            )
        fitted = _fit_chunks(prompt, len(chunks), bound, request)
        return Prepared((fitted,), (len(fitted.token_ids),), (None,), request)

    def _check_room(self, flow: Flow, num_tokens: int) -> None:
        """Refuse a call that would be refused when all of it is tokenised, before it is."""
        if self._turns is not None:
            full = self._turns.admission.refusal(flow.caller, num_tokens)
            if full is not None:
                # Refused there, too, where its size is learned of.
                self._turns.admission.check(flow.caller, num_tokens)

    async def run(self, prepared: Prepared, flow: Flow | None = None) -> list[Outcome]:
        """Embed what was prepared, in order; with `turns`, in pieces that wait for theirs.

        Args:
            prepared: by this pipeline.
            flow: whose turns these are; needed with `turns`.

        Raises:
            QueueFullError: too much waits already; nothing was started.
            EngineError: the engine cannot answer.
        """
        want = prepared.request.want
        good = [prompt for prompt in prepared.prompts if not isinstance(prompt, InputError)]
        if self._turns is None or flow is None:
            outcomes = await self._engine.embed(good, want)
        else:
            with self._turns.admission.place(flow.caller, prepared.total_tokens):
                sizes = [
                    size
                    for prompt, size in zip(prepared.prompts, prepared.num_tokens, strict=True)
                    if not isinstance(prompt, InputError)
                ]
                outcomes = await self._in_turns(self._turns, good, sizes, want, flow)
        if len(good) == len(prepared.prompts):
            return outcomes
        left = iter(outcomes)
        return [
            prompt if isinstance(prompt, InputError) else next(left) for prompt in prepared.prompts
        ]

    async def _in_turns(
        self, turns: TurnQueue, prompts: list[Prompt], sizes: list[int], want: Want, flow: Flow
    ) -> list[Outcome]:
        async def embed(piece: slice) -> list[Outcome]:
            taken = prompts[piece]
            async with turns.turn(flow, sum(sizes[piece]), num_prompts=len(taken)):
                return await self._engine.embed(taken, want)

        pieces = turns.pieces(sizes)
        if len(pieces) == 1:
            return await embed(pieces[0])
        parts = await together(embed(piece) for piece in pieces)
        return [outcome for part in parts for outcome in part]

    def _prepare(self, inputs: Sequence[Input | InputError], request: Request) -> Prepared:
        texts = [item for item in inputs if isinstance(item, Text)]
        bound = self._max_length(request.max_length)
        text_prompts = iter(
            self._prompter.text_prompts(
                texts,
                prompt_name=request.prompt_name,
                max_length=bound if request.too_long == "cut" else None,
            )
        )
        prompts: list[Prompt | InputError] = []
        sizes: list[int] = []
        grids: list[PatchGrid | None] = []
        for item in inputs:
            prompt: Prompt | InputError
            grid: PatchGrid | None = None
            match item:
                case Text():
                    prompt = next(text_prompts)
                    size = len(prompt.token_ids)
                    if size > bound:
                        prompt = _too_long(size, bound)
                case PageImage():
                    prompt, size, grid = self._measured(item, request)
                case InputError():
                    prompt = item
                case _:
                    assert_never(item)
            prompts.append(prompt)
            sizes.append(0 if isinstance(prompt, InputError) else size)
            grids.append(grid)
        return Prepared(tuple(prompts), tuple(sizes), tuple(grids), request)

    def _measured(
        self, item: PageImage, request: Request
    ) -> tuple[Prompt | InputError, int, PatchGrid | None]:
        prompt = self._prompter.image_prompt(item, max_pixels=request.max_pixels)
        if self._limits is None:
            return prompt, len(prompt.token_ids), None
        try:
            width, height = measure_image(item.source, self._limits)
        except InputError as error:
            return error, 0, None
        grid = patch_grid(width, height, prompt.max_pixels, self.manifest.image)
        # The placeholder in the template is one of the image tokens.
        return prompt, len(prompt.token_ids) - 1 + grid.num_tokens, grid

    def _max_length(self, asked: int | None) -> int:
        """What the model takes is cut to what the engine takes; a length asked for on purpose is not."""
        bound = self.manifest.max_text_tokens
        return min(bound, self._engine.max_tokens) if asked is None or asked >= bound else asked

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    async def check_health(self) -> None:
        """Return if the engine can answer.

        Raises:
            EngineError: it cannot.
        """
        await self._engine.check_health()


def _is_quick(inputs: Sequence[Input | InputError]) -> bool:
    """Whether preparing takes less time than a thread takes to get its turn on a busy machine."""
    if any(isinstance(item, PageImage) for item in inputs):
        return False
    return sum(map(_num_chars, inputs)) <= _QUICK_CHARS


def _num_chars(item: Input | InputError) -> int:
    return len(item.text) if isinstance(item, Text) else 0


def _too_long(num_tokens: int, bound: int) -> InputError:
    return InputError(
        f"The text has {num_tokens} tokens; at most {bound} are taken. "
        "Shorten it, or set truncate to have it cut."
    )


def _fit_chunks(prompt: TextPrompt, num_chunks: int, bound: int, request: Request) -> TextPrompt:
    """`prompt` within `bound`; the last of `num_chunks` may have no spans, as they are past it."""
    size, spans = len(prompt.token_ids), prompt.spans
    assert spans is not None
    if size <= bound:
        return prompt
    if request.too_long == "refuse":
        raise InputError(
            f"The chunks have too many tokens together; late chunking takes at most {bound}, because they are "
            "one sequence. Send fewer, or set truncate to have them cut."
        )
    num_left = sum(span.start < bound for span in spans)
    if num_left < num_chunks:
        raise InputError(
            f"Nothing is left of the chunk when the sequence is cut to {bound} tokens. "
            "Send fewer chunks.",
            index=num_left,
        )
    return TextPrompt(
        token_ids=prompt.token_ids[:bound],
        spans=tuple(Span(span.start, min(span.stop, bound)) for span in spans),
    )


def pooled_or_raise(outcomes: Sequence[Outcome], *, name_index: bool) -> list[Pooled]:
    """All vectors, or the first input's error, naming its position where there are several.

    Raises:
        InputError: an input failed.
    """
    pooled: list[Pooled] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, InputError):
            raise outcome.at(index) if name_index else outcome
        pooled.append(outcome)
    return pooled
