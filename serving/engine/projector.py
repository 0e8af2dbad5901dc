"""The projector of multi-vectors, as it lies beside a merged checkpoint's weights."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pooling import Projector
from serving.errors import CheckpointError, TaskError
from serving.manifest import Manifest

PROJECTOR_NAME = "multi_vector_projector.safetensors"


def load_projector(directory: Path, manifest: Manifest) -> Projector | None:
    """Read the projector in float32; None where the manifest has no multi-vectors.

    Raises:
        CheckpointError: the file is missing, unreadable, or not of the manifest's shape.
    """
    if manifest.multi_vector_dim is None:
        return None
    path = directory / PROJECTOR_NAME
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Merge the checkpoint again."
        ) from error
    expected = (manifest.multi_vector_dim, manifest.hidden_size)
    weight = tensors.get("weight")
    if weight is None or tuple(weight.shape) != expected:
        got = "no tensor 'weight'" if weight is None else f"shape {tuple(weight.shape)}"
        raise CheckpointError(f"{path} has {got}, expected {expected}. Merge the checkpoint again.")
    bias = tensors.get("bias")
    return Projector(
        # Copied out of the mapped file, where it may start at any address.
        weight=weight.to(torch.float32, copy=True),
        bias=None if bias is None else bias.to(torch.float32),
    )


def require_projector(manifest: Manifest) -> None:
    """Refuse multi-vectors of a checkpoint that has none.

    Raises:
        TaskError: it has no projector.
    """
    if manifest.multi_vector_dim is None:
        raise TaskError(
            f"The checkpoint of task {manifest.task!r} has no multi_vector_projector, "
            "so it gives single vectors only."
        )
