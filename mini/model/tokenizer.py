"""A tokenizer in Qwen's form, byte-level BPE and the same special tokens, learned from the generated texts.

Two thousand tokens: most words of the vocabulary are one, and anything else is spelled in bytes.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.trainers import BpeTrainer

from benchmarks.synthetic_config import SPECIAL_TOKENS
from mini.documents import vocabulary
from mini.documents.kinds import draw_page
from mini.model.shapes import FIRST_SPECIAL
from mini.texts.functions import function
from mini.texts.paraphrases import pair

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 splits text before BPE: words with the space before them, digits one by one."""

_SEED = 20261127
_NUM_TEXTS = 4000


def corpus() -> Iterator[str]:
    """Texts of every kind that the model is trained on, and every word in every case."""
    rng = random.Random(_SEED)
    for _ in range(_NUM_TEXTS):
        page, same, code = draw_page(rng), pair(rng), function(rng)
        yield from (page.transcript, page.passage, *(query.text for query in page.queries))
        yield from (same.left, same.right, code.code, code.docstring, code.query)
        yield "Query: Passage: Describe the image. user\nassistant\nsystem\n"
    for word in vocabulary.READABLE * 20:
        yield f"{word} {word.capitalize()} {word}"


def learn_tokenizer() -> Tokenizer:
    """Learn merges until the vocabulary is full; the special tokens come after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = ByteLevelProcessor(trim_offsets=False)
    trainer = BpeTrainer(
        vocab_size=FIRST_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """The tokenizer's files as transformers expects them of Qwen2."""
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.model.save(str(directory))  # vocab.json and merges.txt
    added = {token: FIRST_SPECIAL + at for at, token in enumerate(SPECIAL_TOKENS)}
    _write(directory / "added_tokens.json", added)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write(
        directory / "special_tokens_map.json",
        {"additional_special_tokens": list(SPECIAL_TOKENS[1:]), **named},
    )
    _write(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(number): {
                    "content": token,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for token, number in added.items()
            },
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 32768,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
            **named,
        },
    )


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
