"""Real vLLM behind the `Engine` protocol, in this process.

Its scheduler forms the batches; where token embeddings become vectors is `serving.engine.pooled_where`'s.
This module bounds what is in flight and translates prompts and errors. It knows nothing of tasks beyond
the one checkpoint it was started on, nor of HTTP.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from torch import Tensor

from serving.engine.bounds import PromptBounds
from serving.engine.exchange import Exchange
from serving.engine.foreign import foreign_errors, translate
from serving.engine.garbage import settle
from serving.engine.imaging.patches import can_cut
from serving.engine.imaging.pool import ImagePool, num_processes
from serving.engine.imaging.preparing import Rules
from serving.engine.orders import PARCEL_TEXTS
from serving.engine.pooled_where import Pooling
from serving.engine.processes import EngineProcesses, stop
from serving.engine.protocol import ImagePrompt, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.engine.slots import Slots
from serving.engine.sockets import SocketDirectory
from serving.errors import EngineStoppedError, InputError
from serving.images import ImageLimits, count_image_tokens, decode_image
from serving.manifest import Manifest
from serving.settings import EngineSettings
from serving.together import together

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

_PARCELS_AT_ONCE = 4


class VllmEngine:
    """One merged checkpoint in one vLLM engine; made by `serving.engine.start.start_engine`."""

    def __init__(
        self,
        llm: "AsyncLLM",
        pooling: Pooling,
        settings: EngineSettings,
        processes: EngineProcesses,
        sockets: SocketDirectory,
    ) -> None:
        self._processes = processes
        self._sockets = sockets
        from serving.engine.rendered import rendered_image, rendered_text

        self._rendered_text = rendered_text
        self._rendered_image = rendered_image
        self._running: tuple[AsyncLLM, Exchange] | None = (
            llm,
            Exchange(llm, pooling.parcel_params),
        )
        self._pooling = pooling
        self._limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_aspect_ratio=pooling.manifest.image.max_aspect_ratio,
        )
        self.max_tokens: int = llm.model_config.max_model_len
        self._bounds = PromptBounds(
            self.max_tokens,
            llm.input_processor.mm_encoder_cache_size,
            llm.model_config.get_vocab_size(),
        )
        self._images = _image_pool(
            llm, Rules(pooling.manifest.image, self._limits, self._bounds), settings
        )
        self._text_slots = Slots(settings.max_texts_in_flight)
        self._image_slots = asyncio.Semaphore(settings.max_images_in_flight)
        self._foreign = foreign_errors()

    @property
    def num_answered(self) -> int:
        """See `CountsAnswers`; 0 once closed."""
        return 0 if self._running is None else self._running[1].num_answered

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        return self._pooling.manifest

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; see `Engine.embed`."""
        self._pooling.check(want)
        # Before an image is decoded for nothing.
        self._check_exchange()
        texts, alone = self._sorted(prompts)
        # Several in the slots at once, or the engine would wait for each next one.
        size = max(1, min(PARCEL_TEXTS, self._text_slots.total // _PARCELS_AT_ONCE))
        parcels = [texts[start : start + size] for start in range(0, len(texts), size)]
        calls: list[Coroutine[Any, Any, list[Outcome]]] = [
            self._texts([prompts[index] for index in parcel], want) for parcel in parcels
        ]
        calls += [self._alone(prompts[index], want) for index in alone]
        parts = [await calls[0]] if len(calls) == 1 else await together(calls)
        order = [index for parcel in parcels for index in parcel] + alone
        came = dict(zip(order, (outcome for part in parts for outcome in part), strict=True))
        return [came[index] for index in range(len(prompts))]

    async def check_health(self) -> None:
        """Return if the engine can answer; see `Engine.check_health`."""
        self._check_exchange()
        try:
            await self._llm.check_health()
        except self._foreign as error:
            raise translate(error) from error

    async def close(self) -> None:
        """Stop vLLM's processes and wait until they are gone; see `Engine.close`."""
        # Forgotten first: vLLM shuts down once more, with errors, when a reference survives until exit.
        running, self._running = self._running, None
        if self._images is not None:
            self._images.close()
        if running is not None:
            llm, exchange = running
            # First: it would report the processes' wanted end as an engine's death.
            exchange.close()
            await stop(llm, self._processes)
            # It is part of reference cycles, and was frozen; what it holds is large, and complains when
            # it is torn down with the interpreter.
            del llm, exchange, running
            settle()
            self._sockets.release()

    def _check_exchange(self) -> None:
        try:
            self._exchange.check()
        except self._foreign as error:
            raise translate(error) from error

    @property
    def _llm(self) -> "AsyncLLM":
        return self._parts[0]

    @property
    def _exchange(self) -> Exchange:
        return self._parts[1]

    @property
    def _parts(self) -> "tuple[AsyncLLM, Exchange]":
        if self._running is None:
            raise EngineStoppedError("The engine is closed. Load the checkpoint again.")
        return self._running

    def _sorted(self, prompts: Sequence[Prompt]) -> tuple[list[int], list[int]]:
        """Places of the texts that share messages, and of what has one for itself."""
        texts: list[int] = []
        alone: list[int] = []
        for index, prompt in enumerate(prompts):
            is_text = isinstance(prompt, TextPrompt) and prompt.spans is None
            (texts if is_text and self._pooling.takes_parcels else alone).append(index)
        return texts, alone

    async def _texts(self, texts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed whole texts, at most as many as there are slots, in one message."""
        outcomes = dict[int, Outcome]()
        for place, text in enumerate(texts):
            try:
                self._bounds.check_text(text.token_ids)
            except InputError as error:
                outcomes[place] = error
        good = [place for place in range(len(texts)) if place not in outcomes]
        if good:
            token_ids = [texts[place].token_ids for place in good]
            async with self._text_slots.taken(len(good)):
                outputs = await self._or_refusal(self._exchange.texts(token_ids, want))
            pooled = await self._pooled([texts[place] for place in good], want, outputs)
            outcomes.update(zip(good, pooled, strict=True))
        return [outcomes[place] for place in range(len(texts))]

    async def _alone(self, prompt: Prompt, want: Want) -> list[Outcome]:
        """Embed one prompt of any kind."""
        match prompt:
            case TextPrompt():
                slot: AbstractAsyncContextManager[None] = self._text_slots.taken(1)
            case ImagePrompt():
                slot = self._image_slots
            case _:
                assert_never(prompt)
        async with slot:
            return [await self._or_refusal(self._embed(prompt, want))]

    async def _embed(self, prompt: Prompt, want: Want) -> Pooled:
        async with self._rendered(prompt) as rendered:
            token_ids = rendered["prompt_token_ids"]
            params = self._pooling.params(prompt, token_ids, want)
            output = await self._exchange.one(rendered, params)
        return await self._pooling.pooled(prompt, token_ids, want, output)

    async def _pooled(
        self, texts: Sequence[Prompt], want: Want, outputs: Sequence[Tensor] | InputError
    ) -> Sequence[Outcome]:
        """What came for a parcel."""
        if isinstance(outputs, InputError):
            return [outputs] * len(texts)
        pooled = self._pooling.pooled_rows(texts, want, outputs)
        if pooled is not None:
            return pooled
        return [
            await self._or_refusal(self._pooling.pooled(text, text.token_ids, want, output))
            for text, output in zip(texts, outputs, strict=True)
        ]

    async def _or_refusal(self, answer: Awaitable[T]) -> T | InputError:
        """What is awaited, or why an input has no such thing.

        Raises:
            EngineError: the engine cannot answer.
        """
        try:
            return await answer
        except InputError as error:
            return error
        except self._foreign as error:
            ours = translate(error)
            if isinstance(ours, InputError):
                return ours
            raise ours from error

    @asynccontextmanager
    async def _rendered(self, prompt: Prompt) -> "AsyncIterator[EngineInput]":
        """What vLLM takes; an image's pixels are there until the block is left."""
        match prompt:
            case TextPrompt():
                self._bounds.check_text(prompt.token_ids)
                yield self._rendered_text(prompt)
            case ImagePrompt() if self._images is not None:
                async with self._images.patches(prompt) as patches:
                    yield self._rendered_image(prompt, patches, self.manifest)
            case ImagePrompt():
                yield await self._rendered_by_vllm(prompt)
            case _:
                assert_never(prompt)

    async def _rendered_by_vllm(self, prompt: ImagePrompt) -> "EngineInput":
        image = await asyncio.to_thread(decode_image, prompt.source, self._limits)
        num_image_tokens = count_image_tokens(
            image.width, image.height, prompt.max_pixels, self.manifest.image
        )
        self._bounds.check_image(num_image_tokens, len(prompt.token_ids), prompt.max_pixels)
        return await self._llm.renderer.process_for_engine_async(
            {
                "prompt_token_ids": list(prompt.token_ids),
                "multi_modal_data": {"image": image},
                "mm_processor_kwargs": {
                    "size": {
                        "shortest_edge": prompt.min_pixels,
                        "longest_edge": prompt.max_pixels,
                    }
                },
            },
            time.time(),
        )


def _image_pool(llm: "AsyncLLM", rules: Rules, settings: EngineSettings) -> ImagePool | None:
    """None where pixels are not prepared as we do it, so that vLLM has to."""
    multimodal = llm.model_config.multimodal_config
    if not getattr(multimodal, "mm_device_do_normalize", False):
        return None
    if not can_cut(Path(llm.model_config.model), rules.spec):
        return None
    return ImagePool(
        rules,
        processes=num_processes(settings.image_processes),
        max_images=settings.max_images_in_flight,
    )
