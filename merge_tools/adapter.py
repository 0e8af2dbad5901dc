"""One task's LoRA adapter: which pairs of matrices and which whole tensors it brings.

Reads adapter_config.json and the header of adapter_model.safetensors, and sorts every key into a
pair, a replaced tensor, or a problem. Values are read later, by the executor.
Deliberately knows no base model: whether the pairs fit one is decided in matching.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import SourceNotFound, TaskError, UnsupportedAdapter
from merge_tools.lora_config import CONFIG_FILE, LoraConfig, read_lora_config
from merge_tools.names import Spelling, canonical, spelling_of
from merge_tools.shards import StoredTensor, read_shard

__all__ = [
    "ADAPTER_FILE",
    "Adapter",
    "LoraPair",
    "is_task_name",
    "read_adapters",
    "require_task_name",
    "tasks_in",
]

ADAPTER_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
# What PEFT calls an adapter that was given no name.
LONE_ADAPTER = "default"

_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<task>[^.]+))?\.weight")
_SAVED_KEY = re.compile(
    r"(?P<module>.+?)(?:\.modules_to_save(?:\.(?P<task>[^.]+))?)?\.(?P<leaf>weight|bias)"
)
# Parts of keys that only an unsupported feature writes, and that feature's name.
_FOREIGN = {
    "lora_magnitude_vector": "DoRA",
    "lora_embedding_A": "LoRA on an embedding",
    "lora_embedding_B": "LoRA on an embedding",
    "lora_B.bias": "a bias inside the adapter",
    "base_layer": "a saved base layer",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "ia3_l": "IA3",
    "oft_": "OFT",
    "vera_lambda": "VeRA",
}


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module's delta: `scale` * `b` @ `a`."""

    module: str
    a: StoredTensor
    b: StoredTensor
    rank: int
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A task's adapter; `pairs` by canonical module name, `replaced` by canonical tensor name."""

    task: str
    name: str
    config: LoraConfig
    directory: Path
    spelling: Spelling
    pairs: Mapping[str, LoraPair]
    replaced: Mapping[str, StoredTensor]
    problems: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Size on disk of everything that belongs to this task."""
        factors = sum(pair.a.num_bytes + pair.b.num_bytes for pair in self.pairs.values())
        return factors + sum(tensor.num_bytes for tensor in self.replaced.values())


@dataclass(frozen=True, slots=True)
class _Keys:
    """The sorted keys of one task, by (module as spelled, side) and by tensor as spelled."""

    factors: dict[tuple[str, str], StoredTensor]
    saved: dict[str, StoredTensor]


def is_task_name(task: str) -> bool:
    """Whether the task can name a directory."""
    return _TASK_NAME.fullmatch(task) is not None


def require_task_name(task: str) -> str:
    """The task itself.

    Raises:
        TaskError: the task cannot name a directory.
    """
    if not is_task_name(task):
        raise TaskError(
            f"A task names a directory: letters, digits, '.', '_' and '-' only, got {task!r}."
        )
    return task


def read_adapters(directory: Path, *, name: str, task: str | None) -> Sequence[Adapter]:
    """Reads every task in an adapter directory, in the order of their names.

    Args:
        directory: holds adapter_config.json and adapter_model.safetensors.
        name: how the adapter is called in plans and manifests.
        task: the task that keys without a task part belong to.

    Raises:
        AdapterConfigError: adapter_config.json is missing or malformed.
        UnsupportedAdapter: the adapter uses a feature, or holds a key, that is not merged here.
        SourceNotFound: the weights are missing.
        TaskError: keys have no task part and no task was given, or its name is impossible.
    """
    config = read_lora_config(directory)
    tensors = read_shard(_weights(directory))
    keys = _sorted_by_task(directory, tensors)
    if None in keys and len(keys) > 1:
        shared = keys.pop(None)
        strays = [*shared.saved, *(module for module, _ in shared.factors)]
        raise UnsupportedAdapter(
            f"{directory / ADAPTER_FILE} mixes keys with and without a task; {strays[0]} has none. "
            "Save each adapter on its own."
        )
    adapters = []
    for key_task, sorted_keys in keys.items():
        # PEFT calls a lone adapter "default" and sometimes leaves that in the keys.
        is_anonymous = key_task is None or (len(keys) == 1 and task is not None)
        adapter_task = task if is_anonymous else key_task
        if adapter_task is None:
            raise TaskError(f"{directory} names no task. Name it with --task NAME (tasks=[NAME]).")
        adapters.append(
            _adapter(require_task_name(adapter_task), name, config, directory, sorted_keys)
        )
    return adapters


def tasks_in(directory: Path) -> tuple[str, ...]:
    """The tasks that an adapter's keys name; none where they name none, or only PEFT's "default".

    Raises:
        UnsupportedAdapter: the adapter holds a key that is not understood.
        SourceNotFound: the weights are missing.
    """
    keys = _sorted_by_task(directory, read_shard(_weights(directory)))
    named = tuple(task for task in keys if task is not None)
    return () if named == (LONE_ADAPTER,) else named


def _weights(directory: Path) -> Path:
    path = directory / ADAPTER_FILE
    if path.exists():
        return path
    pickled = directory / "adapter_model.bin"
    if pickled.exists():
        raise UnsupportedAdapter(
            f"{pickled} is pickled, and unpickling can run code. Save the adapter again with PEFT, "
            "which writes safetensors."
        )
    raise SourceNotFound(f"{directory} has {CONFIG_FILE} but no {ADAPTER_FILE}. Fetch it again.")


def _sorted_by_task(
    directory: Path, tensors: Mapping[str, StoredTensor]
) -> dict[str | None, _Keys]:
    keys: dict[str | None, _Keys] = {}
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX):
            raise _unknown(directory, key, f"keys begin with {PREFIX!r}")
        for part, feature in _FOREIGN.items():
            if part in key:
                raise UnsupportedAdapter(
                    f"{directory / ADAPTER_FILE} holds {key}, which belongs to {feature}; that is "
                    "not merged. Merge it with PEFT instead."
                )
        bare = key.removeprefix(PREFIX)
        factor = _LORA_KEY.fullmatch(bare)
        saved = None if factor else _SAVED_KEY.fullmatch(bare)
        if factor:
            of_task = keys.setdefault(factor["task"], _Keys({}, {}))
            of_task.factors[factor["module"], factor["side"]] = tensor
        elif saved and ".lora_" not in bare:
            of_task = keys.setdefault(saved["task"], _Keys({}, {}))
            of_task.saved[f"{saved['module']}.{saved['leaf']}"] = tensor
        else:
            raise _unknown(directory, key, "neither a LoRA factor nor a saved module")
    if not keys:
        raise UnsupportedAdapter(f"{directory / ADAPTER_FILE} holds no tensor. Fetch it again.")
    return dict(sorted(keys.items(), key=lambda item: item[0] or ""))


def _unknown(directory: Path, key: str, why: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{directory / ADAPTER_FILE} holds the key {key!r}, which is not understood: {why}."
    )


def _adapter(task: str, name: str, config: LoraConfig, directory: Path, keys: _Keys) -> Adapter:
    problems: list[str] = []
    pairs: dict[str, LoraPair] = {}
    for module in dict.fromkeys(module for module, _ in keys.factors):
        a, b = keys.factors.get((module, "A")), keys.factors.get((module, "B"))
        if a is None or b is None:
            present, absent = ("lora_B", "lora_A") if a is None else ("lora_A", "lora_B")
            problems.append(f"{task}: {module} has {present} but no {absent}.")
            continue
        if canonical(module) in pairs:
            problems.append(f"{task}: {module} is adapted twice, under two spellings.")
        pair = LoraPair(module, a, b, config.rank_of(module), config.scale_of(module))
        pairs[canonical(module)] = pair
    replaced = {canonical(name): tensor for name, tensor in keys.saved.items()}
    problems += [
        f"{task}: {spelled} is saved whole, but adapter_config.json's modules_to_save does not "
        f"name it (got {list(config.modules_to_save)})."
        for spelled in keys.saved
        if not config.saves(spelled.rpartition(".")[0]) and not _is_embedding(spelled)
    ]
    return Adapter(
        task=task,
        name=name,
        config=config,
        directory=directory,
        spelling=spelling_of([*(module for module, _ in keys.factors), *keys.saved]),
        pairs=pairs,
        replaced=replaced,
        problems=tuple(problems),
    )


def _is_embedding(spelled: str) -> bool:
    # PEFT saves embeddings unasked when the vocabulary was resized, and loads them back unasked.
    return spelled.endswith(("embed_tokens.weight", "lm_head.weight"))
