"""Everything that pooling refuses, in one tree.

    PoolingError (ValueError)
    ├── SpanError                 a span that cannot be pooled
    │   ├── EmptySpanError        zero tokens
    │   ├── SpanRangeError        the span leaves the sequence
    │   └── VisionMarkerError     vision markers that do not make exactly one image
    ├── ShapeError                tensors whose shapes do not fit each other
    │   └── DimensionError        a dimension outside what the vectors have
    ├── NonFiniteError            NaN or infinity about to be quantised or encoded
    └── DecodeError               bytes that are not the vectors they are said to be

It knows no HTTP status and no request: a caller maps the tree to its own wire.
"""


class PoolingError(ValueError):
    """The root: a caller who catches it catches everything raised on purpose here."""


class SpanError(PoolingError):
    """A span that cannot be pooled."""


class EmptySpanError(SpanError):
    """A span of zero tokens, whose mean does not exist."""


class SpanRangeError(SpanError):
    """A span that begins before or ends after its sequence."""


class VisionMarkerError(SpanError):
    """Vision markers that are unbalanced, or that enclose more than one image."""


class ShapeError(PoolingError):
    """Tensors whose shapes do not fit each other."""


class DimensionError(ShapeError):
    """A dimension outside of what the vectors have."""


class NonFiniteError(PoolingError):
    """NaN or infinity where the next step would hide it."""


class DecodeError(PoolingError):
    """Bytes whose number or alphabet does not match the vectors they are said to hold."""
