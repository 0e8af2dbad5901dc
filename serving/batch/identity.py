"""What a run is, so that another run continues it only when it would write the same.

Knows which settings change vectors, rows or files; not where the identity is kept.
"""

from typing import Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict

from serving.identity import ModelIdentity
from serving.manifest import Manifest
from serving.settings.batch import BatchSettings

Value = str | int | float | bool | None

DECIDING = (
    "pooling",
    "multi_vector_dtype",
    "max_image_bytes",
    "max_decoded_pixels",
    "max_pdf_bytes",
    "max_pdf_pages",
    "pdf_dpi",
    "id_column",
    "text_column",
    "image_column",
    "pdf_column",
    "split",
    "vectors",
    "vector_dtype",
    "too_long",
    "rows_per_file",
)
"""Settings that are part of a run as they are given."""

RESOLVED = ("dtype", "prompt", "dim", "max_text_tokens", "max_model_tokens", "max_pixels")
"""Settings that are part of a run with the checkpoint's own value in place of None."""

IRRELEVANT = (
    "max_batch_tokens",
    "max_batch_prompts",
    "max_images_in_flight",
    "image_processes",
    "max_texts_in_flight",
    "gpu_memory_fraction",
    "cpu_cache_bytes",
    "reserved_cores",
    "compile",
    "log_level",
    "engine_start_timeout_s",
    "probe_interval_s",
    "stall_timeout_s",
    "max_engine_restarts",
    "engine_restart_window_s",
    # A document that took too long may be given more time, or a faster machine.
    "pdf_timeout_s",
    "pdf_processes",
    "ray_address",
    "engines",
    "gpus_per_engine",
    "cpus_per_engine",
)
"""Settings that may differ from one part of a run to the next."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Strict):
    """One run. The format is that of the output's files, whatever version of polyvec writes them."""

    format: Literal[1] = 1
    model: ModelIdentity
    settings: dict[str, Value]
    source: str
    num_rows: int
    num_chunks: int

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        settings: BatchSettings,
        *,
        source: str,
        num_rows: int,
        num_chunks: int,
    ) -> Self:
        """The run of `settings` with the checkpoint of `manifest` over a source.

        Args:
            manifest: the checkpoint's.
            settings: checked ones.
            source: the source's fingerprint.
            num_rows: of the source.
            num_chunks: of the source.
        """
        return cls(
            model=ModelIdentity.of(manifest),
            settings=_settings(manifest, settings),
            source=source,
            num_rows=num_rows,
            num_chunks=num_chunks,
        )

    def differences(self, other: "Identity") -> list[str]:
        """What `other` has otherwise, one phrase each: the name, what it is here, what it is there."""
        here, there = _flat(self), _flat(other)
        return [
            f"{name} is {here.get(name)!r} there and {there.get(name)!r} now"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]

    def file_metadata(self) -> bytes:
        """What every file of the output says of itself: the model and the settings, as JSON."""
        return orjson.dumps(
            self.model_dump(mode="json", include={"format", "model", "settings"}),
            option=orjson.OPT_SORT_KEYS,
        )


def prompt_name(manifest: Manifest, settings: BatchSettings) -> str:
    """The prefix of the texts: the one asked for, else `passage`, else the checkpoint's default."""
    if settings.prompt is not None:
        return settings.prompt
    return "passage" if "passage" in manifest.prompts else manifest.default_prompt


def _settings(manifest: Manifest, settings: BatchSettings) -> dict[str, Value]:
    given = settings.model_dump(mode="json", include=set(DECIDING))
    multi = settings.vectors == "multi"
    max_tokens = settings.max_model_tokens or manifest.max_text_tokens
    resolved: dict[str, Value] = {
        "dtype": settings.dtype or manifest.dtype,
        "prompt": manifest.prompts[prompt_name(manifest, settings)],
        "dim": manifest.multi_vector_dim if multi else settings.dim or manifest.hidden_size,
        "max_text_tokens": settings.max_text_tokens or max_tokens,
        "max_model_tokens": max_tokens,
        "max_pixels": settings.max_pixels or manifest.image.max_pixels,
    }
    return given | resolved


def _flat(identity: Identity) -> dict[str, Value]:
    names = {
        "format": "the format",
        "source": "the source (its files, their sizes and times)",
        "num_rows": "the number of rows",
        "num_chunks": "the number of files",
    }
    flat: dict[str, Value] = {
        label: getattr(identity, name) for name, label in names.items()
    } | dict(identity.settings)
    for name, value in identity.model.model_dump().items():
        flat[f"the model's {name}"] = value
    return flat
