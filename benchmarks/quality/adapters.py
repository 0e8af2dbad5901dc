"""Which adapter and which prompts a task of mteb is measured with.

Knows types and languages of tasks; no names, no data and no model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

RETRIEVAL, TEXT_MATCHING, CODE = "retrieval", "text-matching", "code"

SYMMETRIC_TYPES = frozenset(
    {
        "STS",
        "VisualSTS(eng)",
        "VisualSTS(multi)",
        "PairClassification",
        "BitextMining",
        "Summarization",
    }
)
"""Types in which both sides are of a kind, so that similarity is measured and nothing is searched for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How tasks are embedded.

    Attributes:
        adapter: for every task; None chooses by its type.
        query_prompt: prefix of what mteb calls a query, and of what it gives no name; None is "query".
        document_prompt: prefix of documents; None is "passage", for text matching "query".
    """

    adapter: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None

    def adapter_of(self, metadata: "TaskMetadata") -> str:
        """The adapter: code where there is code, text matching for what is symmetric, else retrieval.

        As the model's definition in mteb chooses (`jina_models.py`), which names of the symmetric types STS and
        pair classification alone and leaves the others to retrieval.
        """
        if self.adapter is not None:
            return self.adapter
        languages = metadata.bcp47_codes
        if "Programming" in (metadata.domains or []) or any(
            language.endswith("-Code") for language in languages
        ):
            return CODE
        return TEXT_MATCHING if metadata.type in SYMMETRIC_TYPES else RETRIEVAL

    def prompt_of(self, adapter: str, *, is_document: bool) -> str:
        """The prefix: text matching has the same one on both sides."""
        if not is_document:
            return self.query_prompt or "query"
        return self.document_prompt or ("query" if adapter == TEXT_MATCHING else "passage")
