"""The shapes of polyvec-mini: Qwen2.5-VL, four and three layers deep.

Chosen so that base, adapters and tokenizer stay under 12 MB in bfloat16.
"""

from transformers import Qwen2_5_VLConfig

from benchmarks.synthetic_config import SPECIAL_TOKENS

HIDDEN = 256
MULTI_VECTOR_DIM = 128
MATRYOSHKA_DIMS = (32, 64, 128, 256)
PATCH = 14
CELL = 28
MIN_PIXELS, MAX_PIXELS = 3136, 50176
"""Pixels of an image as the model sees it: at most 64 image tokens, 224 x 224."""

VOCABULARY = 2048
FIRST_SPECIAL = VOCABULARY - len(SPECIAL_TOKENS)


def token_id(special: str) -> int:
    """The id of a special token."""
    return FIRST_SPECIAL + SPECIAL_TOKENS.index(special)


TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "use_sliding_window": False,
    "bos_token_id": token_id("<|endoftext|>"),
    "eos_token_id": token_id("<|im_end|>"),
}
MROPE_SECTION = [8, 12, 12]
ROPE_THETA = 10000.0

VISION = {
    "depth": 4,
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_heads": 3,
    "hidden_act": "silu",
    "in_channels": 3,
    "in_chans": 3,
    "patch_size": PATCH,
    "spatial_patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [1, 3],
    "tokens_per_second": 2,
    "out_hidden_size": HIDDEN,
    "initializer_range": 0.02,
}


def config() -> Qwen2_5_VLConfig:
    """The configuration that transformers builds the base from."""
    rope = {"mrope_section": MROPE_SECTION, "rope_type": "default", "rope_theta": ROPE_THETA}
    return Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config=dict(VISION),
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
