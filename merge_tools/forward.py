"""Whether a merged checkpoint computes what its base and unmerged adapter compute.

The reference is transformers' own model with PEFT's own unmerged adapter, in float32; the merged
checkpoint runs in float32 too, so that what differs is the rounding of the merged weights alone.
Hidden states of the last layer, after the final norm, are compared on texts and on images made
here. reference_model and probes import transformers and peft, inside their functions; nothing else in
merge_tools does.
Deliberately knows no file format: both sides are loaded by the libraries under test.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from merge_tools.adapter import Adapter
from merge_tools.errors import UnsupportedBase
from merge_tools.images import image_processor_of
from merge_tools.manifest import Manifest, read_manifest
from merge_tools.plan import plan_merge
from merge_tools.probes import Inputs, probe_inputs
from merge_tools.reference_model import Model, load_merged, load_with_adapter
from merge_tools.source import Source
from merge_tools.verify import checkpoints_in

__all__ = ["ForwardReport", "ProbeResult", "TaskForward", "verify_forward"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest differences that rounding the merged weights once can explain."""

    pooled: float
    worst_token: float


# 1 - cosine. Rounding to bfloat16 moves a weight by up to 2^-9 of itself, to float16 by 2^-12.
_BOUNDS = {
    "float32": Bounds(pooled=1e-6, worst_token=1e-5),
    "float16": Bounds(pooled=2e-5, worst_token=2e-4),
    "bfloat16": Bounds(pooled=5e-4, worst_token=5e-3),
}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How far one input's hidden states are apart; distances are 1 - cosine."""

    probe: str
    num_tokens: int
    max_abs_difference: float
    pooled_distance: float
    worst_token_distance: float


@dataclass(frozen=True, slots=True)
class TaskForward:
    """All probes of one checkpoint and the bounds they were held to."""

    task: str
    path: Path
    dtype: str
    pooled_bound: float
    worst_token_bound: float
    probes: tuple[ProbeResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every probe stays within the bounds; NaN does not."""
        return bool(self.probes) and all(
            probe.pooled_distance <= self.pooled_bound
            and probe.worst_token_distance <= self.worst_token_bound
            for probe in self.probes
        )


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """One entry for each checkpoint."""

    tasks: tuple[TaskForward, ...]

    @property
    def passed(self) -> bool:
        """Whether every checkpoint computes what its unmerged adapter computes."""
        return bool(self.tasks) and all(task.passed for task in self.tasks)

    def describe(self) -> str:
        """The report as text for a terminal; distances are 1 - cosine."""
        lines = []
        for task in self.tasks:
            lines.append(
                f"{'ok    ' if task.passed else 'FAILED'}  {task.task} ({task.dtype}; bounds: pooled "
                f"{task.pooled_bound:g}, worst token {task.worst_token_bound:g})"
            )
            lines += [
                f"  {probe.probe:14} {probe.num_tokens:4} tokens  max |difference| "
                f"{probe.max_abs_difference:.1e}  pooled {probe.pooled_distance:.1e}  worst token "
                f"{probe.worst_token_distance:.1e}"
                for probe in task.probes
            ]
        return "\n".join(lines)


def verify_forward(
    out: Path,
    source: Source,
    *,
    adapters: Mapping[str, Path] | None = None,
    base: str | Path | None = None,
) -> ForwardReport:
    """Runs base + adapter and merged checkpoint on the same inputs, one model in memory at a time.

    Args:
        out: OUT with its tasks, or OUT/<task>.
        source: what they were merged from.
        adapters: as given to plan_merge.
        base: as given to plan_merge.

    Raises:
        NotACheckpoint: there is no merged checkpoint.
        SourceError: the source cannot be used, or the checkpoint has no tokenizer or preprocessor.
    """
    manifests = {path: read_manifest(path) for path in checkpoints_in(Path(out))}
    tasks = sorted({manifest.task for manifest in manifests.values()})
    plan = plan_merge(source, tasks=tasks, adapters=adapters, base=base)
    by_task = {adapter.task: adapter for adapter in plan.adapters}
    inputs = {path: _inputs(path, manifest) for path, manifest in manifests.items()}
    results = []
    for path, manifest in manifests.items():
        expected = _states_of_adapter(plan.base.root, by_task[manifest.task], path, inputs[path])
        probes = tuple(_compared(load_merged(path), inputs[path], expected))
        bounds = _BOUNDS[manifest.dtype]
        results.append(
            TaskForward(
                manifest.task, path, manifest.dtype, bounds.pooled, bounds.worst_token, probes
            )
        )
    return ForwardReport(tuple(results))


def _inputs(path: Path, manifest: Manifest) -> Mapping[str, Inputs]:
    if not ({"tokenizer.json", "vocab.json"} & manifest.files.keys()):
        raise UnsupportedBase(f"{path} has no tokenizer, so no probe can be run through it.")
    if image_processor_of(path) is None:
        raise UnsupportedBase(f"{path} has no preprocessor, so no probe can be run through it.")
    return probe_inputs(path, manifest)


def _states_of_adapter(
    root: Path, adapter: Adapter, merged: Path, inputs: Mapping[str, Inputs]
) -> Sequence[Float32[Tensor, "token hidden"]]:
    model = load_with_adapter(root, adapter, config_from=merged)
    states = [_hidden_states(model, each) for each in inputs.values()]
    del model
    gc.collect()  # two float32 copies of a 3B model would be 30 GB
    return states


def _compared(
    model: Model,
    inputs: Mapping[str, Inputs],
    expected: Sequence[Float32[Tensor, "_ hidden"]],
) -> Iterator[ProbeResult]:
    for (name, each), reference in zip(inputs.items(), expected, strict=True):
        got = _hidden_states(model, each)
        cosines = torch.nn.functional.cosine_similarity(got.double(), reference.double(), dim=-1)
        pooled = torch.nn.functional.cosine_similarity(
            got.double().mean(0), reference.double().mean(0), dim=-1
        )
        yield ProbeResult(
            probe=name,
            num_tokens=len(got),
            max_abs_difference=float((got - reference).abs().max()),
            pooled_distance=1.0 - float(pooled),
            worst_token_distance=1.0 - float(cosines.min()),
        )


def _hidden_states(model: Model, inputs: Inputs) -> Float32[Tensor, "token hidden"]:
    with torch.inference_mode():
        return model(**inputs).last_hidden_state[0].float()
