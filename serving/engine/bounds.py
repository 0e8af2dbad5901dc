"""What one engine was loaded for, and the errors of prompts that are longer."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import InputError


@dataclass(frozen=True, slots=True)
class PromptBounds:
    """The longest prompts of one engine.

    Attributes:
        max_tokens: of a prompt, text or image.
        max_image_tokens: of an image.
        vocabulary: token ids are below it.
    """

    max_tokens: int
    max_image_tokens: int
    vocabulary: int

    def check_text(self, token_ids: Sequence[int]) -> None:
        """Refuse a text that the engine could not embed.

        Raises:
            InputError: it is too long, has no tokens, or one that the model does not know.
        """
        self.check_length(len(token_ids))
        if not token_ids:
            raise InputError("The input has no tokens. Leave it out.")
        for extreme in (min(token_ids), max(token_ids)):
            if not 0 <= extreme < self.vocabulary:
                raise InputError(
                    f"The input has token {extreme}; this model knows 0 to {self.vocabulary - 1}. "
                    "Take the tokenizer of its own checkpoint."
                )

    def check_length(self, num_tokens: int) -> None:
        """Refuse a prompt that is too long.

        Raises:
            InputError: it is.
        """
        if num_tokens > self.max_tokens:
            raise InputError(
                f"The input has {num_tokens} tokens; this engine was loaded for at most {self.max_tokens}. "
                f"Pass max_length={self.max_tokens} to cut it, or load with a larger max_model_tokens."
            )

    def check_image(self, num_image_tokens: int, template_tokens: int, max_pixels: int) -> None:
        """Refuse an image that becomes too many tokens, or whose prompt does.

        Args:
            num_image_tokens: what the image becomes.
            template_tokens: of the prompt around it, its one placeholder included.
            max_pixels: what it is resized to.

        Raises:
            InputError: it does.
        """
        if num_image_tokens > self.max_image_tokens:
            raise InputError(
                f"With max_pixels={max_pixels} the image becomes {num_image_tokens} tokens; this engine "
                f"was loaded for at most {self.max_image_tokens}. Load with "
                f"max_pixels={max_pixels}, or pass a smaller max_pixels."
            )
        # The placeholder in the template is one of the image tokens.
        self.check_length(template_tokens - 1 + num_image_tokens)
