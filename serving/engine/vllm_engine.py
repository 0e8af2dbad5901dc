"""Real vLLM behind the `Engine` protocol, in this process.

Its scheduler forms the batches; where token embeddings become vectors is `serving.engine.pooled_where`'s.
This module bounds what is in flight and translates prompts and errors. It knows nothing of tasks beyond
the one checkpoint it was started on, nor of HTTP.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from serving.engine.bounds import PromptBounds
from serving.engine.foreign import foreign_errors, translate
from serving.engine.garbage import settle
from serving.engine.imaging.patches import can_cut
from serving.engine.imaging.pool import ImagePool, num_processes
from serving.engine.imaging.preparing import Rules
from serving.engine.pooled_where import Pooling
from serving.engine.processes import EngineProcesses, stop
from serving.engine.protocol import ImagePrompt, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.engine.sockets import SocketDirectory
from serving.errors import EngineStoppedError, InputError
from serving.images import ImageLimits, count_image_tokens, decode_image
from serving.manifest import Manifest
from serving.settings import EngineSettings
from serving.together import together

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.v1.engine.async_llm import AsyncLLM


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
        self._running: AsyncLLM | None = llm
        self._pooling = pooling
        self._limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_aspect_ratio=pooling.manifest.image.max_aspect_ratio,
        )
        self.max_tokens: int = llm.model_config.max_model_len
        self._bounds = PromptBounds(self.max_tokens, llm.input_processor.mm_encoder_cache_size)
        self._images = _image_pool(
            llm, Rules(pooling.manifest.image, self._limits, self._bounds), settings
        )
        self._text_slots = asyncio.Semaphore(settings.max_texts_in_flight)
        self._image_slots = asyncio.Semaphore(settings.max_images_in_flight)
        self._foreign = foreign_errors()
        self._numbers = itertools.count()

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        return self._pooling.manifest

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; see `Engine.embed`."""
        self._pooling.check(want)
        return await together(self._outcome(prompt, want) for prompt in prompts)

    async def check_health(self) -> None:
        """Return if the engine can answer; see `Engine.check_health`."""
        try:
            await self._llm.check_health()
        except self._foreign as error:
            raise translate(error) from error

    async def close(self) -> None:
        """Stop vLLM's processes and wait until they are gone; see `Engine.close`."""
        # Forgotten first: vLLM shuts down once more, with errors, when a reference survives until exit.
        llm, self._running = self._running, None
        if self._images is not None:
            self._images.close()
        if llm is not None:
            await stop(llm, self._processes)
            # It is part of reference cycles, and was frozen; what it holds is large, and complains when
            # it is torn down with the interpreter.
            del llm
            settle()
            self._sockets.release()

    @property
    def _llm(self) -> "AsyncLLM":
        if self._running is None:
            raise EngineStoppedError("The engine is closed. Load the checkpoint again.")
        return self._running

    async def _outcome(self, prompt: Prompt, want: Want) -> Outcome:
        match prompt:
            case TextPrompt():
                slots = self._text_slots
            case ImagePrompt():
                slots = self._image_slots
            case _:
                assert_never(prompt)
        async with slots:
            try:
                return await self._embed(prompt, want)
            except InputError as error:
                return error
            except self._foreign as error:
                ours = translate(error)
                if isinstance(ours, InputError):
                    return ours
                raise ours from error

    async def _embed(self, prompt: Prompt, want: Want) -> Pooled:
        async with self._rendered(prompt) as rendered:
            token_ids = rendered["prompt_token_ids"]
            params = self._pooling.params(prompt, token_ids, want)
            request_id = f"polyvec-{next(self._numbers)}"
            final = None
            async for output in self._llm.encode(rendered, params, request_id):
                final = output
        assert final is not None
        return await self._pooling.pooled(prompt, token_ids, want, final.outputs.data)

    @asynccontextmanager
    async def _rendered(self, prompt: Prompt) -> "AsyncIterator[EngineInput]":
        """What vLLM takes; an image's pixels are there until the block is left."""
        match prompt:
            case TextPrompt():
                self._bounds.check_length(len(prompt.token_ids))
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
