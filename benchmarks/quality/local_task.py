"""A dataset directory as a task of mteb, which then scores it as it scores its own.

Knows how mteb's tasks are declared; the directory is read by `reading`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality.reading import PairsData, RetrievalData, read_dataset

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata

_MODALITIES = {"text": "t", "image": "i"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def local_task(directory: Path) -> "AbsTask":
    """The task of the dataset in `directory`: retrieval of texts or pages, or similarity of pairs.

    Its scores are filed under the directory's name; its revision is the digest of its files.

    Raises:
        DatasetError: there is no dataset, or its parts do not fit each other.
    """
    data = read_dataset(directory)
    return _retrieval(data) if isinstance(data, RetrievalData) else _similarity(data)


def _retrieval(data: RetrievalData) -> "AbsTask":
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    category = f"{_letters(data.queries)}2{_letters(data.corpus)}"
    visual = "i" in category

    class Retrieval(AbsTaskRetrieval):
        metadata = _metadata(
            data,
            kind="DocumentUnderstanding" if visual else "Retrieval",
            category=category,
            modalities=[name for name, letter in _MODALITIES.items() if letter in category],
            # What ViDoRe and Jina-VDR are scored by, and what MTEB's retrieval is.
            main_score="ndcg_at_5" if visual else "ndcg_at_10",
        )

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            del num_proc, kwargs
            judged = data.queries.select(
                [at for at, id_ in enumerate(data.queries["id"]) if id_ in data.relevant]
            )
            split = RetrievalSplitData(
                corpus=data.corpus,
                queries=judged,
                relevant_docs={query: dict(found) for query, found in data.relevant.items()},
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Retrieval()


def _similarity(data: PairsData) -> "AbsTask":
    from datasets import DatasetDict
    from mteb.abstasks import AbsTaskSTS

    class Similarity(AbsTaskSTS):
        metadata = _metadata(
            data, kind="STS", category="t2t", modalities=["text"], main_score="cosine_spearman"
        )

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            del num_proc, kwargs
            self.dataset = DatasetDict({"test": data.pairs})
            self.data_loaded = True

    return Similarity()


def _metadata(
    data: RetrievalData | PairsData,
    *,
    kind: str,
    category: str,
    modalities: list[str],
    main_score: str,
) -> "TaskMetadata":
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata.model_validate(
        {
            "name": _NOT_IN_NAMES.sub("-", data.name) or "dataset",
            "description": "A dataset of one's own.",
            "dataset": {"path": data.name, "revision": data.digest},
            "type": kind,
            "category": category,
            "modalities": modalities,
            "eval_splits": ["test"],
            # mteb wants a language; which it is nobody says, and nothing here depends on it.
            "eval_langs": ["eng-Latn"],
            "main_score": main_score,
            "is_public": False,
        }
    )


def _letters(table: "Dataset") -> str:
    """What an input is made of, in mteb's letters: `t`, `i` or `it`."""
    columns = [letter for name, letter in _MODALITIES.items() if name in table.column_names]
    return "".join(sorted(columns))
