"""Which adapter and prompts mteb's own tasks are measured with."""

import mteb
import pytest

from benchmarks.quality.adapters import Choice


@pytest.mark.parametrize(
    ("task", "adapter"),
    [
        ("VidoreDocVQARetrieval", "retrieval"),
        ("JinaVDRTQARetrieval", "retrieval"),
        ("Vidore3FinanceEnRetrieval", "retrieval"),
        ("SCIDOCS", "retrieval"),
        ("MIRACLRetrieval", "retrieval"),
        ("STS12", "text-matching"),
        ("STS22", "text-matching"),
        ("TwitterURLCorpus", "text-matching"),
        ("CodeSearchNetRetrieval", "code"),
        ("CosQA", "code"),
        ("StackOverflowQA", "code"),
        ("Banking77Classification", "retrieval"),
    ],
)
def test_a_task_has_the_adapter_of_its_kind(task: str, adapter: str) -> None:
    metadata = mteb.get_task(task).metadata
    assert Choice().adapter_of(metadata) == adapter
    assert Choice(adapter="mine").adapter_of(metadata) == "mine"


@pytest.mark.parametrize(
    ("choice", "adapter", "is_document", "prompt"),
    [
        (Choice(), "retrieval", False, "query"),
        (Choice(), "retrieval", True, "passage"),
        (Choice(), "code", True, "passage"),
        (Choice(), "text-matching", True, "query"),
        (Choice(document_prompt="passage"), "text-matching", True, "passage"),
        (Choice(query_prompt="passage"), "retrieval", False, "passage"),
    ],
)
def test_sides_have_prefixes(choice: Choice, adapter: str, is_document: bool, prompt: str) -> None:
    assert choice.prompt_of(adapter, is_document=is_document) == prompt
