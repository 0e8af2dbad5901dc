"""A merge, decided in full before a byte is written: every misfit of the inputs is found here.

The plan holds which tensor is read from where, what is added to it for which task, and where the
result goes. Executing it can only fail on the machine's side. Deliberately writes nothing and
computes nothing; the forms a SOURCE may have are told apart in inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from merge_tools.adapter import Adapter, LoraPair
from merge_tools.architecture import LM_HEAD, is_projector
from merge_tools.base_config import JINA, BaseConfig, read_base_config
from merge_tools.dtypes import DType, dtype_named
from merge_tools.errors import MismatchError, UnsupportedBase
from merge_tools.hashes import check_known_hashes
from merge_tools.inputs import find_inputs
from merge_tools.layout import OutputFile, TensorShape, index_json, lay_out, one_file
from merge_tools.manifest import prompts_of
from merge_tools.matching import adapter_problems, base_problems
from merge_tools.names import PROJECTOR, canonical
from merge_tools.shards import Checkpoint, StoredTensor, read_checkpoint
from merge_tools.sidecars import Sidecars, read_sidecars
from merge_tools.source import Source
from merge_tools.values import check_adapter_values

__all__ = ["INDEX_FILE", "PROJECTOR_FILE", "MergePlan", "TensorPlan", "plan_merge"]

PROJECTOR_FILE = f"{PROJECTOR}.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor: `base` is read once, and per task becomes base, base plus delta, or another.

    `name` is the tensor's name in the manifest, `file` and `offset` its place in the output.
    """

    name: str
    canonical: str
    base: StoredTensor
    file: str
    offset: int
    deltas: Mapping[str, LoraPair]
    replacements: Mapping[str, StoredTensor]

    @property
    def is_touched(self) -> bool:
        """Whether any task changes it; if not, one copy is shared by all."""
        return bool(self.deltas or self.replacements)

    def is_touched_by(self, task: str) -> bool:
        """Whether this task changes it; if not, it is the base's, though another task's may not be."""
        return task in self.deltas or task in self.replacements


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Everything that `merge` will do; `describe()` prints it."""

    source: Source
    base: Source
    config: BaseConfig
    adapters: tuple[Adapter, ...]
    dtype: DType
    files: tuple[OutputFile, ...]
    tensors: tuple[TensorPlan, ...]
    sidecars: Sidecars
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order they are merged."""
        return tuple(adapter.task for adapter in self.adapters)

    @property
    def num_touched(self) -> int:
        """Tensors that at least one task changes."""
        return sum(tensor.is_touched for tensor in self.tensors)

    @property
    def bytes_read(self) -> int:
        """Bytes of base and adapters that merging reads."""
        base = sum(tensor.base.num_bytes for tensor in self.tensors)
        return base + sum(adapter.num_bytes for adapter in self.adapters)

    @property
    def bytes_linked(self) -> int:
        """Bytes that the later tasks share with the first by hard link."""
        return (len(self.tasks) - 1) * sum(file.num_bytes for file in self.files if file.is_shared)

    @property
    def bytes_written(self) -> int:
        """Bytes of weights that merging writes."""
        total = len(self.tasks) * sum(file.num_bytes for file in self.files)
        return total - self.bytes_linked

    def describe(self) -> str:
        """The plan as text for a terminal."""
        from merge_tools.description import describe

        return describe(self)


def plan_merge(
    source: Source,
    *,
    tasks: Sequence[str] | None = None,
    dtype: str | None = None,
    adapters: Mapping[str, Path] | None = None,
    base: str | Path | None = None,
    check_hashes: bool = False,
) -> MergePlan:
    """Reads all headers and configurations and decides the merge.

    Args:
        source: a checkpoint with its adapters, an ordinary PEFT LoRA directory, or, with
            `adapters`, a bare Qwen2.5-VL base.
        tasks: the tasks to merge; None is all of them. For a single PEFT directory, its name.
        dtype: "bfloat16", "float16" or "float32" for the output; None is the base's own.
        adapters: task name to PEFT LoRA directory.
        base: the base model, where the source does not bring it or names it wrongly.
        check_hashes: also compare every weight file with the sha256 that its download from the hub
            recorded, which reads everything once.

    Raises:
        SourceError: of the kind that the input is refused for. MismatchError carries all misfits.
    """
    inputs = find_inputs(source, tasks=tasks, adapters=adapters, base=base)
    if check_hashes:
        for root in sorted({inputs.base.root, *(adapter.directory for adapter in inputs.adapters)}):
            check_known_hashes(
                root, download=source.root if root.is_relative_to(source.root) else root
            )
    config = read_base_config(inputs.base.root)
    checkpoint = read_checkpoint(inputs.base.root)
    by_name, notes = _by_canonical_name(checkpoint, config)
    adapters_used, adapter_notes = _without_tied_head(inputs.adapters, config)
    problems = [*inputs.problems(config.task_names), *base_problems(by_name, config)]
    for adapter in adapters_used:
        problems += adapter_problems(adapter, by_name)
    if problems:
        raise MismatchError(problems)
    check_adapter_values(adapters_used)
    out_dtype = dtype_named(dtype) if dtype else _own_dtype(checkpoint)
    sidecars = read_sidecars(inputs.base.root, config, out_dtype)
    files, tensors = _place(by_name, adapters_used, out_dtype)
    return MergePlan(
        source=source,
        base=inputs.base,
        config=config,
        adapters=adapters_used,
        dtype=out_dtype,
        files=files,
        tensors=tensors,
        sidecars=sidecars.with_text(
            INDEX_FILE, index_json([file for file in files if file.name != PROJECTOR_FILE])
        ),
        notes=(*notes, *adapter_notes, *sidecars.notes, *_prompt_notes(config, adapters_used)),
    )


def _by_canonical_name(
    checkpoint: Checkpoint, config: BaseConfig
) -> tuple[Mapping[str, StoredTensor], list[str]]:
    by_name: dict[str, StoredTensor] = {}
    notes = []
    for name, tensor in checkpoint.tensors.items():
        canonical_name = canonical(name)
        if canonical_name in by_name:
            raise MismatchError(
                [f"The base holds {canonical_name} twice: {by_name[canonical_name].name}, {name}."]
            )
        if canonical_name == LM_HEAD and config.tied:
            notes.append("lm_head.weight is not used for embeddings and is left out.")
            continue
        by_name[canonical_name] = tensor
    return by_name, notes


def _without_tied_head(
    adapters: Sequence[Adapter], config: BaseConfig
) -> tuple[tuple[Adapter, ...], list[str]]:
    """Leaves out a saved lm_head where the base has none of its own: embeddings do not use it."""
    kept, notes = [], []
    for adapter in adapters:
        if config.tied and LM_HEAD in adapter.replaced:
            others = {name: t for name, t in adapter.replaced.items() if name != LM_HEAD}
            kept.append(replace(adapter, replaced=others))
            notes.append(
                f"{adapter.task}: the adapter's saved lm_head.weight is not used for embeddings and "
                "is left out."
            )
        else:
            kept.append(adapter)
    return tuple(kept), notes


def _prompt_notes(config: BaseConfig, adapters: Sequence[Adapter]) -> list[str]:
    """What an adapter was trained with is written nowhere; only jina's own is known."""
    if config.architecture == JINA:
        return []
    return [
        f"{adapter.task}: texts will be embedded with the prefixes "
        + " and ".join(f"{text!r} ({name})" for name, text in prompts_of(adapter.task).items())
        + ", which are jina-embeddings-v4's. If the adapter was trained otherwise, edit prompts in "
        "polyvec.json before serving; verify allows that, but verify with --source reports it."
        for adapter in adapters
    ]


def _own_dtype(checkpoint: Checkpoint) -> DType:
    dtypes = {tensor.dtype.name: tensor.dtype for tensor in checkpoint.tensors.values()}
    if len(dtypes) > 1:
        raise UnsupportedBase(
            f"{checkpoint.root} holds tensors of several dtypes ({', '.join(sorted(dtypes))}), so "
            "it has no dtype of its own. Choose the output's with --dtype (dtype=...)."
        )
    return next(iter(dtypes.values()))


def _place(
    by_name: Mapping[str, StoredTensor], adapters: Sequence[Adapter], dtype: DType
) -> tuple[tuple[OutputFile, ...], tuple[TensorPlan, ...]]:
    deltas = {
        name: {a.task: a.pairs[module] for a in adapters if module in a.pairs}
        for name in by_name
        if name.endswith(".weight") and (module := name.removesuffix(".weight"))
    }
    replacements = {
        name: {a.task: a.replaced[name] for a in adapters if name in a.replaced} for name in by_name
    }
    own, shared, projector = [], [], []
    for name, tensor in by_name.items():
        if is_projector(name):
            projector.append(TensorShape(name.removeprefix(f"{PROJECTOR}."), tensor.shape))
        elif deltas.get(name) or replacements[name]:
            own.append(TensorShape(tensor.name, tensor.shape))
        else:
            shared.append(TensorShape(tensor.name, tensor.shape))
    files = lay_out(own, shared, dtype)
    if projector:
        files = (*files, one_file(PROJECTOR_FILE, projector, dtype, is_shared=False))
    places = {
        _manifest_name(file.name, placed.name): (file.name, placed.offset)
        for file in files
        for placed in file.tensors
    }
    plans = tuple(
        TensorPlan(
            tensor.name,
            name,
            tensor,
            *places[tensor.name],
            deltas=deltas.get(name, {}),
            replacements=replacements[name],
        )
        for name, tensor in by_name.items()
    )
    return files, plans


def _manifest_name(file: str, key: str) -> str:
    return f"{PROJECTOR}.{key}" if file == PROJECTOR_FILE else key
