"""How much one body may hold; what stands in a body is counted before memory is spent on it.

It does not know the size of the body as a whole (the server's business) nor tokens (the tokenizer's).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of one request, each at least 1.

    Attributes:
        max_inputs: inputs of a list.
        max_image_bytes: one image, after base64.
        max_pdf_bytes: one PDF, after base64.
        max_text_chars: one text, so that tokenising it stays bounded.
        max_token_ids: one text that came as token ids.
        max_request_chars: all texts together.
    """

    max_inputs: int
    max_image_bytes: int
    max_pdf_bytes: int
    max_text_chars: int
    max_token_ids: int
    max_request_chars: int
