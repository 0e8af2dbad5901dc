"""Which checkpoint made a vector: its source's name and revision, and a digest of what its vectors depend on.

Reads a manifest; knows neither where the checkpoint lies nor what is done with its vectors.
"""

from collections.abc import Iterable
from typing import Self

import orjson
import xxhash
from pydantic import BaseModel, ConfigDict

from serving.manifest import Manifest


class ModelIdentity(BaseModel):
    """The checkpoint that made the vectors; `digest` is of its tensors, tokenizer and prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    revision: str | None
    digest: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The identity of the checkpoint that `manifest` describes."""
        source = manifest.merge.source
        return cls(
            name=source.name, task=manifest.task, revision=source.revision, digest=_digest(manifest)
        )


def joint_digest(manifests: Iterable[Manifest]) -> str:
    """A digest of several tasks together, in whatever order; of one task it is that task's own."""
    digests = sorted(_digest(manifest) for manifest in manifests)
    return digests[0] if len(digests) == 1 else xxhash.xxh3_128_hexdigest(orjson.dumps(digests))


def _digest(manifest: Manifest) -> str:
    spoken = manifest.model_dump(
        mode="json",
        include={"hidden_size", "prompts", "image_prompt", "special_token_ids", "image"},
    )
    tensors = {name: record.xxh3_128 for name, record in manifest.tensors.items()}
    files = {
        name: record.xxh3_128
        for name, record in manifest.files.items()
        if name.startswith("tokenizer")
    }
    data = orjson.dumps([spoken, tensors, files], option=orjson.OPT_SORT_KEYS)
    return xxhash.xxh3_128_hexdigest(data)
