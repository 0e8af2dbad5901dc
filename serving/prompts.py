"""Inputs to prompts: the manifest's template and prefix around what the user gave.

Special tokens inside user text are encoded as the characters they are spelled with, so no text can
pretend to be an image. Knows the tokenizer and the manifest; not the engine.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from serving.engine.protocol import ImagePrompt, TextPrompt
from serving.errors import CheckpointError, TaskError
from serving.inputs import PageImage, Text
from serving.manifest import Manifest


class Prompter:
    """Makes prompts for one task."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._tokenizer = _load_tokenizer(directory)
        self._image_template = self._encode_image_template()
        self._guard_markers()

    def text_prompts(
        self, texts: Sequence[Text], *, prompt_name: str | None, max_length: int
    ) -> list[TextPrompt]:
        """Prefix and tokenise `texts`; each keeps its first `max_length` tokens, prefix included.

        Raises:
            TaskError: the manifest has no prompt of that name.
        """
        prefix = self.prefix(prompt_name)
        encodings = self._tokenizer.encode_batch_fast(
            [prefix + text.text for text in texts], add_special_tokens=False
        )
        return [TextPrompt(token_ids=tuple(encoding.ids[:max_length])) for encoding in encodings]

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
        # The library answers a cut file with a bare Exception; the cut is found here first.
        json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}). Merge the checkpoint again."
        ) from error
    tokenizer = Tokenizer.from_str(text)
    # Both would change what the model sees; length is decided by the request.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
