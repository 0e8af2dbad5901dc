"""Inputs to vectors for one task: prompts, engine, Matryoshka cut, in input order.

The one path that the Python API, HTTP and batch jobs share. Knows the Engine protocol, not its
implementations; knows no wire format.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pooling import truncate
from serving.engine.protocol import Engine, Outcome, Pooled, Prompt, Want
from serving.errors import InputError, TaskError
from serving.inputs import Input, PageImage, Text
from serving.manifest import Manifest
from serving.prompts import Prompter


@dataclass(frozen=True, slots=True)
class Request:
    """What to do with every input of one call.

    Attributes:
        want: single vectors, multi-vectors or both.
        prompt_name: prefix of the texts; None is the manifest's default.
        max_length: tokens a text keeps, prefix included; None is the manifest's bound.
        max_pixels: area an image is reduced to; None is the manifest's bound.
        dim: single vectors are cut to this and scaled to unit length again; None keeps all.
    """

    want: Want
    prompt_name: str | None = None
    max_length: int | None = None
    max_pixels: int | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_length", "max_pixels", "dim"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise TaskError(f"{name} must be an int, not {value!r}.")


class Pipeline:
    """Embeds inputs with one engine."""

    def __init__(self, engine: Engine, prompter: Prompter) -> None:
        self._engine = engine
        self._prompter = prompter

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
        if request.dim is not None and not 1 <= request.dim <= self.manifest.hidden_size:
            raise TaskError(
                f"Vectors have 1 to {self.manifest.hidden_size} dimensions, not {request.dim}."
            )

    async def embed(self, inputs: Sequence[Input | InputError], request: Request) -> list[Outcome]:
        """Embed `inputs` in order; one that is bad, or came in as an error, fails alone.

        Raises:
            TaskError: no input could satisfy the request.
            EngineError: the engine cannot answer.
        """
        self.check(request)
        prompts = await self._prompts(inputs, request)
        good = [prompt for prompt in prompts if not isinstance(prompt, InputError)]
        pooled = iter(await self._engine.embed(good, request.want))
        return [
            prompt if isinstance(prompt, InputError) else _cut(next(pooled), request.dim)
            for prompt in prompts
        ]

    async def _prompts(
        self, inputs: Sequence[Input | InputError], request: Request
    ) -> list[Prompt | InputError]:
        texts = [item for item in inputs if isinstance(item, Text)]
        # One call tokenises the batch on all cores, outside the interpreter's lock.
        text_prompts = iter(
            await asyncio.to_thread(
                self._prompter.text_prompts,
                texts,
                prompt_name=request.prompt_name,
                max_length=self._max_length(request.max_length),
            )
        )
        prompts: list[Prompt | InputError] = []
        for item in inputs:
            match item:
                case Text():
                    prompts.append(next(text_prompts))
                case PageImage():
                    prompts.append(self._prompter.image_prompt(item, max_pixels=request.max_pixels))
                case InputError():
                    prompts.append(item)
        return prompts

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


def _cut(outcome: Outcome, dim: int | None) -> Outcome:
    if dim is None or isinstance(outcome, InputError) or outcome.single is None:
        return outcome
    return replace(outcome, single=truncate(outcome.single, dim))


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
