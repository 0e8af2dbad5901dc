"""How a corpus is embedded: where its rows are, what they become, and on what; every default once.

It does not know Ray, nor the formats that rows are read from.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from serving.settings.documents import DocumentSettings
from serving.settings.engine import PREFIX, Count

VectorDtype = Literal["float32", "float16", "int8", "binary", "ubinary"]


class BatchSettings(DocumentSettings):
    """Settings of `polyvec embed`, frozen; unset fields come from `POLYVEC_*` in the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    # What a row is

    id_column: str | None = None
    """Column with a row's id, a string or an integer, without which a row is rejected; None is `id`, and
    where a row has none, an id made of its file and its place in it."""

    text_column: str = "text"
    """Column with a text."""

    image_column: str = "image"
    """Column with an image: a path (relative ones begin at the directory of the file that names them), bytes, or
    a data URI."""

    pdf_column: str = "pdf"
    """Column with a PDF, given as an image is; each of its pages becomes a row of the output."""

    split: str | None = None
    """Split of a dataset that has several."""

    # What it becomes

    prompt: str | None = None
    """Prefix of the texts; None is `passage`, or the checkpoint's default where it has no such prefix."""

    vectors: Literal["single", "multi"] = "single"
    """One vector for each row or page, or one for each of its tokens."""

    dim: Count | None = None
    """Keep this many dimensions of single vectors (Matryoshka); None is all."""

    vector_dtype: VectorDtype = "float32"
    """Type of the values; int8 comes with a scale for each vector, binary and ubinary are packed bits."""

    max_text_tokens: Count | None = None
    """Tokens of one text, prefix included; None is all that the model takes."""

    too_long: Literal["cut", "reject"] = "cut"
    """What becomes of a longer text: its head is embedded, or the row is rejected."""

    rows_per_file: Count = 1024
    """Rows of the source that become one file of the output; what an interruption loses at most for each
    engine is a few of these."""

    # On what

    ray_address: str | None = None
    """Ray cluster to run on, as `auto` or `ray://HOST:10001`; None is `RAY_ADDRESS`, or Ray is started on this
    machine for the job."""

    engines: Count | None = None
    """Engines side by side; None is as many as the cluster has GPUs for, or one on CPUs."""

    gpus_per_engine: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of a GPU for each engine; None is one where the cluster has GPUs, and none otherwise."""

    cpus_per_engine: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray sets aside for each engine."""

    reserved_cores: Annotated[int, Field(ge=0)] = 1
    """On a CPU, cores that the model leaves to reading and writing; it keeps at least one."""
