"""The columns of the output, by settings: names, types and how they are stored.

Knows Arrow and Parquet; not where values come from.
"""

from dataclasses import dataclass
from typing import Self, assert_never

import pyarrow as pa

from serving.manifest import Manifest
from serving.settings.batch import BatchSettings, VectorDtype

METADATA_KEY = b"polyvec"
"""Key in a file's metadata: JSON of the model's identity and the settings that made the vectors."""

CHUNK_KEY = b"polyvec_chunk"
"""Key in a file's metadata: JSON of what became of the chunk's rows."""


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """How vectors are stored.

    Attributes:
        dtype: of the values.
        multi: one vector a token instead of one a row.
        dim: dimensions of a vector before it is packed.
    """

    dtype: VectorDtype
    multi: bool
    dim: int

    @classmethod
    def of(cls, manifest: Manifest, settings: BatchSettings) -> Self:
        """The format of a run; its settings were checked against the manifest."""
        if settings.vectors == "multi":
            assert manifest.multi_vector_dim is not None
            return cls(settings.vector_dtype, True, manifest.multi_vector_dim)
        return cls(settings.vector_dtype, False, settings.dim or manifest.hidden_size)

    @property
    def width(self) -> int:
        """Values of a stored vector: dimensions, or bytes of packed bits."""
        return (self.dim + 7) // 8 if self.dtype in ("binary", "ubinary") else self.dim

    @property
    def value_type(self) -> pa.DataType:
        """Arrow's type of one value."""
        match self.dtype:
            case "float32":
                return pa.float32()
            case "float16":
                return pa.float16()
            case "int8" | "binary":
                return pa.int8()
            case "ubinary":
                return pa.uint8()
            case _:
                assert_never(self.dtype)

    @property
    def has_scale(self) -> bool:
        """Whether vectors come with a scale that undoes the rounding."""
        return self.dtype == "int8"

    @property
    def embedding_type(self) -> pa.DataType:
        """Arrow's type of one row's vector or vectors."""
        vector = pa.list_(self.value_type, self.width)
        return pa.list_(vector) if self.multi else vector

    def schema(self, metadata: bytes) -> pa.Schema:
        """All columns, in order."""
        fields = [
            pa.field("id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("page", pa.int32()),
            pa.field("embedding", self.embedding_type, nullable=False),
        ]
        if self.has_scale:
            scale = pa.list_(pa.float32()) if self.multi else pa.float32()
            fields.append(pa.field("scale", scale, nullable=False))
        fields.append(pa.field("num_tokens", pa.int32(), nullable=False))
        return pa.schema(fields, metadata={METADATA_KEY: metadata})


def plain_columns(schema: pa.Schema) -> list[str]:
    """Columns with values that repeat or can be ordered: worth a dictionary, statistics, compression."""
    return [name for name in schema.names if name not in ("embedding", "scale")]


def column_compression(schema: pa.Schema) -> dict[str, str]:
    """Compression by Parquet's path of a column: vectors are noise, and take time to compress for nothing."""
    element = ".list.element"
    paths = dict.fromkeys(plain_columns(schema), "ZSTD")
    for name in ("embedding", "scale"):
        if name in schema.names:
            depth, kind = 0, schema.field(name).type
            while isinstance(kind, pa.ListType | pa.FixedSizeListType):
                depth, kind = depth + 1, kind.value_type
            paths[name + element * depth] = "NONE"
    return paths
