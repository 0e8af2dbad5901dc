"""How an engine is started: every default once.

Flags and environment (`POLYVEC_DTYPE`, ...) derive from this class. It does not know vLLM's own option
names; serving/engine translates.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.manifest import Dtype

PREFIX = "POLYVEC_"

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]

MIB = 1024 * 1024


class EngineSettings(BaseSettings):
    """Settings of one engine, frozen; unset fields come from `POLYVEC_*` in the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    dtype: Dtype | None = None
    """Arithmetic of the model; None is the checkpoint's own."""

    pooling: Literal["engine", "external"] = "engine"
    """Where token embeddings become vectors: in the engine's worker, or outside an unmodified vLLM."""

    multi_vector_dtype: Literal["float16", "float32"] | None = None
    """Type in which multi-vectors leave the worker; None is float32 for a float32 model, else float16."""

    max_model_tokens: Annotated[int, Field(gt=0)] | None = None
    """Longest prompt in tokens, text or image; None is the manifest's `max_text_tokens`."""

    max_batch_tokens: Annotated[int, Field(ge=64)] = 8192
    """Tokens that one step of the engine computes; longer prompts run in several steps."""

    max_batch_prompts: Annotated[int, Field(gt=0)] = 256
    """Prompts that one step of the engine computes."""

    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Largest image the engine reserves memory for, in pixels after resizing; None is the manifest's."""

    max_image_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    """Largest encoded image that is read, in bytes."""

    max_decoded_pixels: Annotated[int, Field(gt=0)] = 178_956_970
    """Largest image that is decoded, in pixels before resizing: Pillow's own bound for an attack."""

    max_images_in_flight: Annotated[int, Field(gt=0)] = 32
    """Images decoded and waiting for the engine at once; each holds its pixels in memory."""

    image_processes: Annotated[int, Field(ge=0)] | None = None
    """Processes of each engine that decode and cut up images, started after the first few; 0 uses threads.
    None is one for each core but one, up to 8, and 0 on two cores."""

    max_texts_in_flight: Annotated[int, Field(gt=0)] = 1024
    """Texts handed to the engine at once."""

    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Part of the accelerator's memory that all engines of the process share."""

    cpu_cache_bytes: Annotated[int, Field(gt=0)] | None = None
    """Memory of the attention cache on a CPU; None is two prompts of the longest length."""

    reserved_cores: Annotated[int, Field(ge=0)] = 0
    """On a CPU, cores that the model leaves to everything else; it keeps at least one."""

    compile: bool | None = None
    """Let the engine compile and capture the model; None is yes on a GPU and no on a CPU."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "ERROR"
    """What the engine's own processes log."""
