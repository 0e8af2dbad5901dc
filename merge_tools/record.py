"""A plan and the digests of its execution, turned into the manifest of each task.

Deliberately computes no digest of a weight and writes no file.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TypeVar

from merge_tools.adapter import Adapter
from merge_tools.base_config import JINA
from merge_tools.digest import file_digest, shard_digest, text_digest
from merge_tools.executor import Digests
from merge_tools.layout import OutputFile
from merge_tools.manifest import (
    FORMULA,
    IMAGE_PROMPT,
    MANIFEST_VERSION,
    MAX_TEXT_TOKENS,
    AdapterRecord,
    FileRecord,
    ImageRecord,
    Manifest,
    MergeRecord,
    SourceRecord,
    SpecialTokenIds,
    TensorRecord,
    prompts_of,
)
from merge_tools.names import PROJECTOR
from merge_tools.plan import PROJECTOR_FILE, MergePlan

__all__ = ["manifest_of"]

Number = TypeVar("Number", int, float)


def manifest_of(plan: MergePlan, adapter: Adapter, digests: Digests) -> Manifest:
    """The manifest of one task of an executed plan."""
    config = plan.config
    tensors = _tensors(plan, adapter.task, digests)
    projector = tensors.get(f"{PROJECTOR}.weight")
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        polyvec_version=version("polyvec"),
        task=adapter.task,
        model=_model_name(plan),
        dtype=plan.dtype.name,
        hidden_size=config.text.hidden,
        matryoshka_dims=config.matryoshka_dims,
        multi_vector_dim=projector.shape[0] if projector else None,
        max_text_tokens=min(MAX_TEXT_TOKENS, config.text.max_positions),
        prompts=prompts_of(adapter.task),
        default_prompt="query",
        image_prompt=IMAGE_PROMPT,
        special_token_ids=SpecialTokenIds(
            config.special_ids.vision_start,
            config.special_ids.vision_end,
            config.special_ids.image_pad,
        ),
        image=ImageRecord(
            plan.sidecars.image.patch_size,
            plan.sidecars.image.merge_size,
            plan.sidecars.image.min_pixels,
            plan.sidecars.image.max_pixels,
        ),
        merge=_merge_record(plan, adapter),
        files=_files(plan, tensors),
        tensors=tensors,
    )


def _model_name(plan: MergePlan) -> str:
    if plan.config.architecture == JINA:
        return "jina-embeddings-v4"
    # A name that transformers recorded may be a path of another machine: keep its end only.
    recorded = (plan.config.name or "").rstrip("/").rpartition("/")[2]
    return recorded or plan.base.short_name


def _merge_record(plan: MergePlan, adapter: Adapter) -> MergeRecord:
    config, pairs = adapter.config, list(adapter.pairs.values())
    touched = sum(tensor.is_touched_by(adapter.task) for tensor in plan.tensors)
    return MergeRecord(
        formula=FORMULA,
        source=SourceRecord(plan.base.name, plan.base.revision),
        adapter=AdapterRecord(
            adapter.name,
            _shared([pair.rank for pair in pairs]),
            _shared([config.alpha_of(pair.module) for pair in pairs]),
            _shared([pair.scale for pair in pairs]),
        ),
        num_touched=touched,
        num_untouched=len(plan.tensors) - touched,
    )


def _shared(values: Sequence[Number]) -> Number | None:
    """The one value that all have, or None."""
    return values[0] if values and len(set(values)) == 1 else None


def _tensors(plan: MergePlan, task: str, digests: Digests) -> dict[str, TensorRecord]:
    return {
        tensor.name: TensorRecord(
            file=tensor.file,
            dtype=plan.dtype.name,
            shape=tensor.base.shape,
            touched=tensor.is_touched_by(task),
            xxh3_128=digests.outputs[tensor.name, task if tensor.is_touched else None],
            source_xxh3_128=(digests.sources[tensor.name] if tensor.is_touched_by(task) else None),
        )
        for tensor in sorted(plan.tensors, key=lambda tensor: tensor.name)
    }


def _files(plan: MergePlan, tensors: dict[str, TensorRecord]) -> dict[str, FileRecord]:
    records = {file.name: _shard_record(file, tensors) for file in plan.files}
    for name, text in plan.sidecars.texts.items():
        data = text.encode()
        records[name] = FileRecord(len(data), text_digest(data))
    for name, path in plan.sidecars.copied.items():
        records[name] = FileRecord(path.stat().st_size, file_digest(path))
    return dict(sorted(records.items()))


def _shard_record(file: OutputFile, tensors: dict[str, TensorRecord]) -> FileRecord:
    prefix = f"{PROJECTOR}." if file.name == PROJECTOR_FILE else ""
    digests = [tensors[f"{prefix}{tensor.name}"].xxh3_128 for tensor in file.tensors]
    return FileRecord(file.num_bytes, shard_digest(file.header, digests))
