"""A plan as text: what will be read, changed, written and shared.

Deliberately decides nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_tools.plan import MergePlan

__all__ = ["describe"]


def describe(plan: "MergePlan") -> str:
    """Some lines for a terminal."""
    num_untouched = len(plan.tensors) - plan.num_touched
    revision = f" at {plan.base.revision}" if plan.base.revision else ""
    lines = [
        f"base      {plan.base.name}{revision} ({plan.config.architecture})",
        f"tensors   {len(plan.tensors)}: {plan.num_touched} touched, {num_untouched} untouched",
        f"dtype     {_input_dtypes(plan)} -> {plan.dtype.name}",
        f"read      {plan.bytes_read:,} bytes",
        f"write     {plan.bytes_written:,} bytes",
        f"link      {plan.bytes_linked:,} bytes that the tasks share",
    ]
    for adapter in plan.adapters:
        config = adapter.config
        kind = "rsLoRA" if config.use_rslora else "LoRA"
        replaced = f", {len(adapter.replaced)} replaced tensors" if adapter.replaced else ""
        lines.append(
            f"task      {adapter.task}: {len(adapter.pairs)} {kind} pairs from {adapter.name}, "
            f"r {config.rank}, alpha {config.alpha:g}, scale {config.scale_of(''):g}{replaced}"
        )
    for file in plan.files:
        shared = ", shared by hard link" if file.is_shared and len(plan.tasks) > 1 else ""
        lines.append(
            f"file      {file.name}: {len(file.tensors)} tensors, {file.num_bytes:,} bytes{shared}"
        )
    lines += [f"file      {name}" for name in sorted({*plan.sidecars.copied, *plan.sidecars.texts})]
    lines += [f"note      {note}" for note in plan.notes]
    return "\n".join(lines)


def _input_dtypes(plan: "MergePlan") -> str:
    return ", ".join(sorted({tensor.base.dtype.name for tensor in plan.tensors}))
