"""Whether adapters and base fit: the two-way match, with every misfit in a sentence.

Both directions are checked, because PEFT checks neither loudly: each adapter key must find a base
tensor of the right shape, and each module that the configuration says is adapted must have a pair.
Deliberately reads nothing: it works on names and shapes alone.
"""

from collections.abc import Iterable, Iterator, Mapping

from merge_tools.adapter import Adapter, LoraPair
from merge_tools.architecture import (
    LM_HEAD,
    expected_tensors,
    is_convolution,
    is_embedding,
    is_linear,
    is_projector,
)
from merge_tools.base_config import BaseConfig
from merge_tools.names import PROJECTOR, spell
from merge_tools.shards import StoredTensor

__all__ = ["adapter_problems", "base_problems"]


def base_problems(base: Mapping[str, StoredTensor], config: BaseConfig) -> Iterator[str]:
    """Every way in which the base's tensors differ from what its config.json demands.

    Args:
        base: the base's tensors by canonical name.
        config: the base's configuration.
    """
    expected = dict(expected_tensors(config))
    expected |= _projector_shapes(base, config)
    for name in expected.keys() - base.keys():
        yield f"The base lacks {name}, which its config.json demands."
    for name, tensor in base.items():
        if name in expected:
            if tensor.shape != expected[name]:
                yield (
                    f"{tensor.name} has shape {tensor.shape}, expected {expected[name]} "
                    "from config.json."
                )
        elif not (name == LM_HEAD and config.tied):
            yield f"The base holds {tensor.name}, which is no tensor of {config.architecture}."


def _projector_shapes(
    base: Mapping[str, StoredTensor], config: BaseConfig
) -> dict[str, tuple[int, ...]]:
    """The projector may be there or not, and says its own width; weight and bias must agree."""
    weight = base.get(f"{PROJECTOR}.weight")
    if weight is None and not any(is_projector(name) for name in base):
        return {}
    width = weight.shape[0] if weight is not None and weight.shape else 0
    return {
        f"{PROJECTOR}.weight": (width, config.text.hidden),
        f"{PROJECTOR}.bias": (width,),
    }


def adapter_problems(adapter: Adapter, base: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Every way in which one task's adapter does not fit the base, in both directions."""
    yield from adapter.problems
    for module, pair in adapter.pairs.items():
        yield from _pair_problems(adapter.task, module, pair, base)
        if f"{module}.weight" in adapter.replaced:
            yield f"{adapter.task}: {module} is both adapted and replaced whole."
    for name, tensor in adapter.replaced.items():
        if name not in base:
            yield f"{adapter.task}: {tensor.name} replaces {name}, which the base does not have."
        elif tensor.shape != base[name].shape:
            yield (
                f"{adapter.task}: {tensor.name} has shape {tensor.shape}, expected "
                f"{base[name].shape}."
            )
    for module in _expected_modules(adapter, base):
        if module not in adapter.pairs:
            yield (
                f"{adapter.task}: adapter_config.json says {spell(module, adapter.spelling)} is "
                "adapted, but the adapter has no pair for it."
            )
    yield from _missing_saved(adapter, base)


def _pair_problems(
    task: str, module: str, pair: LoraPair, base: Mapping[str, StoredTensor]
) -> Iterator[str]:
    weight = base.get(f"{module}.weight")
    if weight is None:
        yield f"{task}: {pair.a.name} adapts {module}, which the base does not have."
        return
    if not is_linear(weight_name := f"{module}.weight", weight.shape):
        kind = "a convolution" if is_convolution(weight_name) else "not a linear layer"
        yield f"{task}: {pair.a.name} adapts {module}, which is {kind}; that is not merged."
        return
    num_out, num_in = weight.shape
    for side, tensor, expected in (
        ("lora_A", pair.a, (pair.rank, num_in)),
        ("lora_B", pair.b, (num_out, pair.rank)),
    ):
        if tensor.shape != expected:
            yield (
                f"{task}: {side} of {module} has shape {tensor.shape}, expected {expected} "
                f"(rank {pair.rank} from adapter_config.json)."
            )


def _expected_modules(adapter: Adapter, base: Mapping[str, StoredTensor]) -> Iterable[str]:
    for name, tensor in base.items():
        module = name.removesuffix(".weight")
        could_be = is_linear(name, tensor.shape) or is_embedding(name) or is_convolution(name)
        if could_be and adapter.config.adapts(spell(module, adapter.spelling)):
            is_shorthand = adapter.config.target_modules == "all-linear"
            if is_linear(name, tensor.shape) or not is_shorthand:
                yield module


def _missing_saved(adapter: Adapter, base: Mapping[str, StoredTensor]) -> Iterator[str]:
    for name in base:
        module = spell(name, adapter.spelling).rpartition(".")[0]
        if adapter.config.saves(module) and name not in adapter.replaced:
            yield (
                f"{adapter.task}: modules_to_save names {module}, but the adapter does not hold "
                f"{name}."
            )
