"""The pooler inside vLLM's worker, step by step, without an engine around it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pooling import single_vector, whole
from serving.engine.projector import load_projector
from serving.engine.recipe import Recipe
from serving.engine.worker import EXTRA
from serving.manifest import read_manifest

pytestmark = pytest.mark.engine

NUM_TOKENS = 20


class Stepped:
    """One text, whose rows come in as many steps as a test wants."""

    def __init__(self, directory: Path) -> None:
        from vllm.config import VllmConfig, set_current_vllm_config
        from vllm.pooling_params import PoolingParams
        from vllm.v1.pool.metadata import PoolingStates

        from serving.engine.worker.pooler import RecipePooler

        manifest = read_manifest(directory)
        with set_current_vllm_config(VllmConfig()):
            self.pooler = RecipePooler(manifest, load_projector(directory, manifest))
        self.rows = torch.randn(NUM_TOKENS, manifest.hidden_size)
        recipe = Recipe((whole(NUM_TOKENS),))
        self.params = PoolingParams(
            task="embed", use_activation=True, extra_kwargs={EXTRA: recipe.to_numbers()}
        )
        self.state = PoolingStates()

    def step(self, start: int, stop: int) -> torch.Tensor | None:
        """What comes of a step over rows `start` to `stop`."""
        from vllm.v1.pool.metadata import PoolingMetadata

        metadata = PoolingMetadata(
            prompt_lens=torch.tensor([NUM_TOKENS], dtype=torch.int32),
            prompt_token_ids=None,
            prompt_token_ids_cpu=None,
            pooling_params=[self.params],
            pooling_states=[self.state],
        )
        metadata.build_pooling_cursor(
            np.array([stop - start], dtype=np.int32),
            torch.tensor([stop], dtype=torch.int32),
            torch.device("cpu"),
        )
        (output,) = self.pooler(self.rows[start:stop], metadata)
        return output


@pytest.fixture
def stepped(merged_float32: Path) -> Stepped:
    torch.manual_seed(0)
    return Stepped(merged_float32 / "code")


def test_steps_of_a_prompt_become_one_vector(stepped: Stepped) -> None:
    assert stepped.step(0, 8) is None
    assert stepped.step(8, 13) is None
    output = stepped.step(13, 20)
    assert output is not None
    assert torch.equal(output[0], single_vector(stepped.rows, whole(NUM_TOKENS)))


def test_a_prompt_that_vllm_begins_anew_is_pooled_without_its_earlier_rows(
    stepped: Stepped,
) -> None:
    right = single_vector(stepped.rows, whole(NUM_TOKENS))
    stepped.step(0, 8)
    output = stepped.step(0, 20)
    assert output is not None
    assert torch.equal(output[0], right)
    stepped.step(0, 8)
    stepped.step(0, 5)
    output = stepped.step(5, 20)
    assert output is not None
    assert torch.equal(output[0], right)


def test_a_prompt_of_which_a_cached_prefix_was_skipped_has_no_vector(stepped: Stepped) -> None:
    output = stepped.step(8, 20)
    assert output is not None
    assert output.isnan().all()
