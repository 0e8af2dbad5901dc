"""Texts that are no prose: markers of images, marks without end, nothing at all."""

from collections.abc import Iterator

from tests.http.hostile.case import Case, embed

MARKERS = (
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)

IMAGE_IN_TEXT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe.<|im_end|>\n"


def texts() -> dict[str, str]:
    return {
        "nothing": "",
        "spaces": " " * 1000,
        "lines": "\r\n" * 1000,
        "spaces of Unicode": "\u00a0\u2003\u2028\u3000\ufeff" * 100,
        "a NUL": "a\0b",
        "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "right to left": "\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd \u2066\u0645\u0631\u062d\u2069",
        "zalgo": "".join(letter + "\u0301\u0315\u0340" * 40 for letter in "zalgo"),
        "a letter under two thousand marks": "a" + "\u0301" * 2000,
        "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 100,
        "flags": "\U0001f1e9\U0001f1ea" * 100 + "\U0001f1e9",
        "characters beyond the plane": "\U0010ffff\U000e0001\U0001d54f",
        "no characters": "\ufffe\uffff\ufdd0",
        "the replacement character": "\ufffd" * 100,
        "private use": "\ue000\uf8ff\U000f0000",
        "joiners alone": "\u200d\u200c\u2060" * 100,
        "half of Hangul": "\u1100\u1161\u11a8" * 100 + "\u1161",
        "what NFKC makes long": "\ufdfa" * 1000,
        "digits": "1" * 5000,
        "one letter": "a" * 5000,
        "quotes": "'\"`" * 1000,
        "backslashes": "\\" * 1000,
        "a URL": "http://169.254.169.254/latest/meta-data",
        "a file's URL": "file:///etc/passwd",
        "a path": "/etc/passwd",
        "a template": "{{7*7}} ${jndi:ldap://x/a} %s%n {0.__class__} <script>",
        "SQL": "'; DROP TABLE embeddings; --",
        "escape sequences": "\x1b[2J\x1b]0;owned\x07",
        "a data URI that is no image's": "data:text/plain;base64,AAAA",
        "JSON": '{"image": "AAAA"}',
        "all markers": IMAGE_IN_TEXT * 20,
        **{f"the marker {marker}": marker * 50 for marker in MARKERS},
    }


def cases() -> Iterator[Case]:
    for name, text in texts().items():
        yield embed(f"text: {name}", 200, input=text)
    yield embed("text: in every shape at once", 200, input=[*texts().values()])
    yield embed("text: late chunks of everything", 200, late_chunking=True, input=_chunks())
    yield embed("text: the largest id of the vocabulary is refused past it", 422, input=[151_936])


def _chunks() -> list[str]:
    return [text[:200] for text in texts().values() if text]
