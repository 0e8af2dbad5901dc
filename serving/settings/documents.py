"""How PDFs become pages: every default once, for servers and for batch jobs."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from serving.settings.engine import MIB, PREFIX, Count, Seconds
from serving.settings.supervision import SupervisionSettings


class DocumentSettings(SupervisionSettings):
    """Settings of whoever opens PDFs and embeds them; frozen, unset fields come from `POLYVEC_*`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    max_pdf_bytes: Count = 8 * MIB
    """Bytes of one PDF."""

    max_pdf_pages: Count = 256
    """Pages of one PDF."""

    pdf_dpi: Annotated[int, Field(ge=36, le=600)] = 144
    """Resolution that PDF pages are rendered at, before the model's own resizing."""

    pdf_timeout_s: Seconds = 60.0
    """Time that rendering one PDF may take."""

    pdf_processes: Count = 2
    """PDFs rendered at once, each in a process of its own."""
