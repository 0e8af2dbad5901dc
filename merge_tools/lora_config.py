"""adapter_config.json, checked: what LoRA variant it is and which modules it adapts.

The matching of module names follows PEFT (peft/tuners/tuners_utils.py: check_target_module_exists;
peft/utils/other.py: get_pattern_key) rule by rule, because an adapter means what PEFT makes of it.
PEFT itself is not imported: it brings transformers, and with it half a gigabyte.
Deliberately knows no tensor and no file other than adapter_config.json.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import AdapterConfigError, UnsupportedAdapter
from merge_tools.jsonfile import JsonObject, read_json_object

__all__ = ["CONFIG_FILE", "LoraConfig", "read_lora_config"]

CONFIG_FILE = "adapter_config.json"
ALL_LINEAR = "all-linear"

# Fields that change what the adapter computes in a way that is not merged here, and what they are.
_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "a bias inside the adapter",
    "fan_in_fan_out": "fan_in_fan_out weights",
    "layer_replication": "layer replication",
    "trainable_token_indices": "trainable token indices",
    "target_parameters": "LoRA on bare parameters",
    "ensure_weight_tying": "tied adapters",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "Megatron layers",
}
# Fields that do not change what a trained adapter computes.
_IGNORED = frozenset(
    [
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_names",
        "task_type",
    ]
)
_READ = frozenset(
    [
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    ]
)
# These leave the base model as it was; PiSSA, OLoRA, CorDA, LoftQ and others train on a changed one.
_HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """A LoRA adapter's configuration; module names are in the spelling of the adapter's keys."""

    rank: int
    alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...]
    modules_to_save: tuple[str, ...]
    layers_to_transform: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    base_name: str | None
    base_revision: str | None

    def rank_of(self, module: str) -> int:
        """The rank that the configuration gives this module."""
        return self.rank_pattern.get(_pattern_key(self.rank_pattern, module), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha that the configuration gives this module."""
        return self.alpha_pattern.get(_pattern_key(self.alpha_pattern, module), self.alpha)

    def scale_of(self, module: str) -> float:
        """The factor of B @ A: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def adapts(self, module: str) -> bool:
        """Whether the configuration says that this linear module has a pair."""
        if self._excludes(module) or self._saves_part_of(module):
            return False
        targets = self.target_modules
        if isinstance(targets, str):
            if targets.lower() == ALL_LINEAR:
                return module != "lm_head"  # PEFT leaves the output head out of all-linear
            return re.fullmatch(targets, module) is not None
        if module in targets:
            return True
        found = any(module.endswith(f".{target}") for target in targets)
        return found and self._is_in_layers(module)

    def saves(self, module: str) -> bool:
        """Whether modules_to_save replaces this module, itself or as a part of a larger one."""
        parts = module.split(".")
        ancestors = (".".join(parts[: count + 1]) for count in range(len(parts)))
        return any(
            ancestor.endswith(name) for ancestor in ancestors for name in self.modules_to_save
        )

    def _excludes(self, module: str) -> bool:
        if isinstance(self.exclude_modules, str):
            return bool(self.exclude_modules) and bool(re.fullmatch(self.exclude_modules, module))
        return module in self.exclude_modules or any(
            module.endswith(f".{name}") for name in self.exclude_modules
        )

    def _saves_part_of(self, module: str) -> bool:
        return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save)

    def _is_in_layers(self, module: str) -> bool:
        if not self.layers_to_transform:
            return True
        patterns = self.layers_pattern or (r"[^.]*",)
        anchor = r"(?:^|.*?\.)" if self.layers_pattern else r".*?\."
        for pattern in patterns:
            match = re.match(rf"{anchor}{pattern}\.(?P<index>\d+)\.", module)
            if match is not None:
                return int(match["index"]) in self.layers_to_transform
        return False


def _pattern_key(patterns: Mapping[str, object], module: str) -> str:
    for pattern in patterns:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return pattern
    return module


def read_lora_config(directory: Path) -> LoraConfig:
    """Reads `directory`/adapter_config.json.

    Raises:
        AdapterConfigError: the file is missing, malformed, or holds an impossible value.
        UnsupportedAdapter: it uses a feature that is not merged here.
    """
    path = directory / CONFIG_FILE
    config = read_json_object(path, error=AdapterConfigError)
    _refuse_unsupported(config)
    layers = config.raw("layers_to_transform")
    result = LoraConfig(
        rank=config.integer("r"),
        alpha=config.number("lora_alpha"),
        use_rslora=config.boolean("use_rslora", default=False),
        rank_pattern=_integers_of(config, "rank_pattern"),
        alpha_pattern=_numbers_of(config, "alpha_pattern"),
        target_modules=_pattern_or_names(config, "target_modules"),
        exclude_modules=_pattern_or_names(config, "exclude_modules"),
        modules_to_save=config.texts("modules_to_save"),
        layers_to_transform=(layers,)
        if isinstance(layers, int)
        else config.integers("layers_to_transform") or None,
        layers_pattern=_names(config, "layers_pattern"),
        base_name=config.optional_text("base_model_name_or_path"),
        base_revision=config.optional_text("revision"),
    )
    _check(path, result)
    return result


def _refuse_unsupported(config: JsonObject) -> None:
    kind = config.text("peft_type")
    if kind != "LORA":
        raise UnsupportedAdapter(f"{config.where} is a {kind} adapter; only LORA is merged.")
    bias = config.text("bias", "none")
    if bias != "none":
        raise UnsupportedAdapter(
            f"{config.where} says bias {bias!r}: adapters that train biases are not merged. "
            "Merge it with PEFT instead."
        )
    for field, meaning in _REFUSED.items():
        if config.raw(field) not in (None, False, [], {}):
            raise UnsupportedAdapter(
                f"{config.where} sets {field}: {meaning} is not merged. Merge it with PEFT instead."
            )
    init = config.raw("init_lora_weights")
    if init is not None and init not in _HARMLESS_INITS:
        raise UnsupportedAdapter(
            f"{config.where} says init_lora_weights {init!r}, which changes the base weights before "
            "training. Convert the adapter to plain LoRA with PEFT first."
        )
    for field, value in config.values.items():
        known = field in _IGNORED or field in _READ or field in _REFUSED
        if not known and value not in (None, False, [], {}, ""):
            raise UnsupportedAdapter(
                f"{config.where} sets {field} = {value!r:.60}, which is unknown here and might "
                "change the adapter. Merge it with PEFT instead."
            )


def _check(path: Path, config: LoraConfig) -> None:
    for what, rank in {"r": config.rank, **config.rank_pattern}.items():
        if rank < 1:
            raise AdapterConfigError(f"{path}: the rank of {what} must be at least 1, got {rank}.")
    for what, alpha in {"lora_alpha": config.alpha, **config.alpha_pattern}.items():
        if not math.isfinite(alpha):
            raise AdapterConfigError(f"{path}: the alpha of {what} must be finite, got {alpha}.")
    if not config.target_modules and not config.modules_to_save:
        raise AdapterConfigError(
            f"{path} names no target_modules, so it does not say what it adapts. "
            "Save the adapter with PEFT, which writes them."
        )
    patterns = [*config.rank_pattern, *config.alpha_pattern, *config.layers_pattern]
    patterns += [p for p in (config.target_modules, config.exclude_modules) if isinstance(p, str)]
    for pattern in (*patterns, *config.modules_to_save):
        try:
            re.compile(pattern)
        except re.error as cause:
            raise AdapterConfigError(
                f"{path}: {pattern!r} is not a regular expression ({cause})."
            ) from cause


def _pattern_or_names(config: JsonObject, field: str) -> str | tuple[str, ...]:
    value = config.raw(field)
    return value if isinstance(value, str) else config.texts(field)


def _names(config: JsonObject, field: str) -> tuple[str, ...]:
    value = _pattern_or_names(config, field)
    return (value,) * bool(value) if isinstance(value, str) else value


def _integers_of(config: JsonObject, field: str) -> Mapping[str, int]:
    values = config.optional_nested(field)
    return {} if values is None else {name: values.integer(name) for name in values.values}


def _numbers_of(config: JsonObject, field: str) -> Mapping[str, float]:
    values = config.optional_nested(field)
    return {} if values is None else {name: values.number(name) for name in values.values}
