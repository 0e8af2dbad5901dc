"""Inputs to prompts: the manifest's template and prefix around what the user gave.

Special tokens inside user text are encoded as the characters they are spelled with, so no text can
pretend to be an image. Knows the tokenizer and the manifest; not the engine.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from tokenizers import AddedToken, Tokenizer

from pooling import Span
from serving.engine.protocol import ImagePrompt, TextPrompt
from serving.errors import CheckpointError, InputError, TaskError
from serving.inputs import PageImage, Text
from serving.manifest import Manifest, read_manifest
from serving.preparing import pieces

# For 8 texts of 80 characters, waking the tokenizer's threads took 0.5 ms of processor time instead of 0.28, and had
# them no sooner.
_FEW_CHARS = 2048


class Prompter:
    """Makes prompts for one task."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._tokenizer = _load_tokenizer(directory)
        self._image_template = self._encode_image_template()
        self._guard_markers()

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The prompter of a merged checkpoint.

        Raises:
            CheckpointError: its manifest or tokenizer is missing, damaged, or they do not fit.
        """
        return cls(directory, read_manifest(directory))

    def text_prompts(
        self, texts: Sequence[Text], *, prompt_name: str | None, max_length: int | None
    ) -> list[TextPrompt]:
        """Prefix and tokenise `texts`; each keeps its first `max_length` tokens, prefix included.

        Args:
            texts: what to tokenise.
            prompt_name: a name of the manifest's; None is its default.
            max_length: None keeps all tokens.

        Raises:
            TaskError: the manifest has no prompt of that name.
        """
        prefix = self.prefix(prompt_name)
        ids = self._encode([prefix + text.text for text in texts])
        return [TextPrompt(token_ids=tuple(one[:max_length])) for one in ids]

    def chunked_prompt(
        self, chunks: Sequence[Text], *, prompt_name: str | None, enough: int | None = None
    ) -> TextPrompt:
        """One sequence of all `chunks`, with a span for each: late chunking.

        The prefix stands once, at the head, and belongs to the first span; every chunk is tokenised by
        itself, so that no token lies across a border. One chunk gives the prompt of an ordinary text. Once there
        are more tokens than `enough`, no further chunks need be tokenised: these have no span.

        Raises:
            TaskError: the manifest has no prompt of that name.
            InputError: a chunk has no tokens; names its position.
        """
        prefix = self.prefix(prompt_name)
        texts = [prefix + chunks[0].text, *(chunk.text for chunk in chunks[1:])]
        ids: list[int] = []
        spans: list[Span] = []
        for piece in pieces(texts, len):
            for part in self._encode(texts[piece]):
                if not part:
                    raise InputError(
                        "The chunk has no tokens to pool. Leave it out.", index=len(spans)
                    )
                spans.append(Span(len(ids), len(ids) + len(part)))
                ids += part
            if enough is not None and len(ids) > enough:
                break
        return TextPrompt(token_ids=tuple(ids), spans=tuple(spans))

    def text_of(self, token_ids: Sequence[int]) -> Text:
        """The text that `token_ids` stand for; special tokens are spelled out.

        Raises:
            InputError: an id is not in the vocabulary.
        """
        size = self._tokenizer.get_vocab_size()
        for token_id in token_ids:
            if not 0 <= token_id < size:
                raise InputError(
                    f"Token id {token_id} is not in the vocabulary of {size}. "
                    "Ids must come from this model's own tokenizer; send the text instead."
                )
        return Text(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def spelled(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text; bytes that are no character by themselves as U+FFFD."""
        return self._tokenizer.decode_batch([[one] for one in token_ids], skip_special_tokens=False)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # One call uses all cores, outside the interpreter's lock; one text stays on its thread.
        encode = partial(self._tokenizer.encode_batch_fast, add_special_tokens=False)
        if sum(map(len, texts)) <= _FEW_CHARS:
            return [encode([text])[0].ids for text in texts]
        return [encoding.ids for encoding in encode(texts)]

    def image_prompt(self, image: PageImage, *, max_pixels: int | None) -> ImagePrompt:
        """Put `image` into the manifest's template; it is resized to at most `max_pixels`."""
        spec = self.manifest.image
        bound = spec.max_pixels if max_pixels is None else max_pixels
        return ImagePrompt(
            token_ids=self._image_template,
            source=image.source,
            min_pixels=min(spec.min_pixels, bound),
            max_pixels=bound,
        )

    def prefix(self, prompt_name: str | None) -> str:
        """The characters put before a text.

        Raises:
            TaskError: the manifest has no prompt of that name.
        """
        name = self.manifest.default_prompt if prompt_name is None else prompt_name
        if not isinstance(name, str) or name not in self.manifest.prompts:
            raise TaskError(
                f"Invalid prompt_name: {name}. Must be one of {list(self.manifest.prompts)}."
            )
        return self.manifest.prompts[name]

    def _encode_image_template(self) -> tuple[int, ...]:
        # The template is the model's own text: its special tokens are meant as such.
        self._tokenizer.encode_special_tokens = False
        ids = tuple(
            self._tokenizer.encode(self.manifest.image_prompt, add_special_tokens=False).ids
        )
        self._tokenizer.encode_special_tokens = True
        special = self.manifest.special_token_ids
        for name, token_id in special:
            if ids.count(token_id) != 1:
                raise CheckpointError(
                    f"The image prompt {self.manifest.image_prompt!r} has {ids.count(token_id)} tokens "
                    f"{name} (id {token_id}), expected 1. The tokenizer and the manifest do not belong together; "
                    "merge the checkpoint again."
                )
        return ids

    def _guard_markers(self) -> None:
        """Make the image markers special, so that user text cannot spell them; some tokenizers do not."""
        contents: list[str] = []
        for _, token_id in self.manifest.special_token_ids:
            content = self._tokenizer.id_to_token(token_id)
            assert content is not None  # the template was checked to hold it
            contents.append(content)
        self._tokenizer.add_special_tokens(
            [AddedToken(content, special=True, normalized=False) for content in contents]
        )
        ids = set(self._tokenizer.encode("".join(contents), add_special_tokens=False).ids)
        forged = ids & {token_id for _, token_id in self.manifest.special_token_ids}
        if forged:
            raise CheckpointError(
                f"The tokenizer turns user text into the image markers {sorted(forged)}. "
                "Merge a checkpoint whose tokenizer marks them as special."
            )


def _load_tokenizer(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Merge the checkpoint again.")
    text = path.read_text(encoding="utf-8")
    try:
        # The library does not say where a cut file ends.
        json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}). Merge the checkpoint again."
        ) from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read by the installed tokenizers ({error}). Merge the checkpoint again, or "
            "install the release of tokenizers that wrote it."
        ) from error
    # Both would change what the model sees; length is decided by the request.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
