"""Qwen2.5-VL whose pooler gives finished vectors, from one copy of the weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.fusion.mm_input_norm import FusedMMInputNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.utils import StageMissingLayer, no_init_weights
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec

from pooling import Projector
from serving.engine.projector import load_projector
from serving.engine.worker.pixels import BlockwiseNorm, put_in_places
from serving.engine.worker.pooler import RecipePooler
from serving.manifest import read_manifest


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor,
    info=Qwen2_5_VLProcessingInfo,
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class PolyvecQwen25VL(Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """vLLM's own model with a pooler of ours in place of its language head.

    Task `embed` gives single vectors, `token_embed` multi-vectors, or both of one prompt.
    """

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        # The language head is as large as the embedding, and nobody asks for a next token. Should a
        # checkpoint have one, vLLM's loader passes over what is missing here.
        with no_init_weights(
            self,
            lambda module: StageMissingLayer("output", module),
            targets=(LogitsProcessor, ParallelLMHead),
        ):
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        directory = Path(vllm_config.model_config.model)
        manifest = read_manifest(directory)
        device = vllm_config.device_config.device
        assert isinstance(device, torch.device)
        if device.type == "cpu" and isinstance(self.visual.input_norm, FusedMMInputNorm):
            self.visual.input_norm = BlockwiseNorm(self.visual.input_norm)
        self.pooler = RecipePooler(manifest, _on(device, load_projector(directory, manifest)))

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Rows [token, hidden] of `input_ids`, those of images taken from `multimodal_embeddings`.

        On a CPU, vLLM's joins the images' rows and then puts them in their places one by one. An image's rows
        stand together: each image is one copy.
        """
        if not multimodal_embeddings or input_ids.device.type != "cpu":
            merged: Tensor = super().embed_input_ids(
                input_ids, multimodal_embeddings, is_multimodal=is_multimodal
            )
            return merged
        assert is_multimodal is not None
        embeddings: Tensor = super().embed_input_ids(input_ids, is_multimodal=is_multimodal)
        return put_in_places(embeddings, multimodal_embeddings, is_multimodal)

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[Tensor, int]:
        """Positions int64 [3, token], and by how much generation would go on beyond the last.

        A text's are its tokens' numbers, which vLLM works out through a dozen small arrays.
        """
        if not mm_features:
            return torch.arange(len(input_tokens)).expand(3, -1), 0
        positions: tuple[Tensor, int] = super().get_mrope_input_positions(input_tokens, mm_features)
        return positions


def _on(device: torch.device, projector: Projector | None) -> Projector | None:
    if projector is None:
        return None
    bias = projector.bias
    return Projector(
        weight=projector.weight.to(device), bias=None if bias is None else bias.to(device)
    )
