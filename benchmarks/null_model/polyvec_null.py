"""Lets vLLM run a language model without layers: the embedding and nothing else.

With this folder on `PYTHONPATH`, vLLM loads it as a plugin in each of its processes, whoever started
them, so that every contender of a benchmark runs the same checkpoint under its usual architecture.
Only a model without layers behaves differently.
"""

from typing import Any


def register() -> None:
    """Return the embeddings where there is no layer. The norm goes too: on a CPU it took most of the time."""
    from vllm.model_executor.models.qwen2 import Qwen2Model

    original = Qwen2Model.forward
    if getattr(original, "passes_by", False):
        return

    def forward(
        self: Any,
        input_ids: Any,
        positions: Any,
        intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
    ) -> Any:
        if self.start_layer < self.end_layer:
            return original(self, input_ids, positions, intermediate_tensors, inputs_embeds)
        return self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds

    forward.passes_by = True  # type: ignore[attr-defined]
    Qwen2Model.forward = forward
