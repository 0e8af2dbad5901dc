"""Directories of datasets: written, read, and refused where they are none."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.quality.dataset import write_page_dataset, write_pairs_dataset
from benchmarks.quality.errors import DatasetError
from benchmarks.quality.reading import PairsData, RetrievalData, read_dataset
from tests.benchmarks.quality.corpora import PAGES, PAIRS, QUESTIONS, TEXTS, page, write_texts


def read_retrieval(directory: Path) -> RetrievalData:
    data = read_dataset(directory)
    assert isinstance(data, RetrievalData)
    return data


def test_pages_come_back_with_their_pixels_and_queries(pages: Path) -> None:
    data = read_retrieval(pages)
    assert list(data.corpus["id"]) == list(PAGES)
    for row in data.corpus:
        assert row["image"].tobytes() == page(row["id"]).tobytes()
    asked = dict(zip(data.queries["id"], data.queries["text"], strict=True))
    found = {asked[query]: set(documents) for query, documents in data.relevant.items()}
    assert found == {
        "a wide page": {"wide"},
        "total of the invoice": {"wide", "square"},
        "a tall page": {"tall"},
        "the smallest of all": {"small"},
        "a square": {"square"},
    }


def test_a_written_directory_loads_as_hugging_face_datasets_load(
    pages: Path, tmp_path: Path
) -> None:
    def rows(name: str) -> datasets.Dataset:
        return datasets.load_dataset(str(pages), name, split="test", cache_dir=str(tmp_path))

    assert isinstance(rows("corpus").features["image"], datasets.Image)
    assert rows("queries").column_names == ["query-id", "query"]
    assert rows("qrels").column_names == ["query-id", "corpus-id", "score"]


@pytest.mark.parametrize(
    ("pages_given", "says"),
    [
        ([], "no page"),
        ([("a", "page", [])], "no query"),
        ([("a", "page", ["q"]), ("a", "page", [])], "there twice"),
        ([("", "page", ["q"])], "is empty"),
        ([("a", "page", [" "])], "A query of page 'a' is empty"),
    ],
)
def test_what_cannot_be_measured_is_not_written(
    pages_given: Sequence[tuple[str, str, list[str]]], says: str, tmp_path: Path
) -> None:
    rows = [(id_, page("small"), queries) for id_, _, queries in pages_given]
    with pytest.raises(DatasetError, match=says):
        write_page_dataset(tmp_path / "out", rows)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[str, Image.Image, list[str]]]:
        yield "a", page("small"), ["q"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page_dataset(tmp_path / "out", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(pages: Path) -> None:
    with pytest.raises(DatasetError, match="exists"):
        write_page_dataset(pages, [("a", page("small"), ["q"])])
    with pytest.raises(DatasetError, match="exists"):
        write_pairs_dataset(pages, PAIRS)


def test_pairs_are_written_on_the_scale_of_sts(tmp_path: Path) -> None:
    write_pairs_dataset(tmp_path / "pairs", [("a", "b", 0.5), ("c", "d", 1)], max_score=1)
    data = read_dataset(tmp_path / "pairs")
    assert isinstance(data, PairsData)
    assert list(data.pairs["score"]) == [2.5, 5.0]
    with pytest.raises(DatasetError, match="Pair 1 has the score 6"):
        write_pairs_dataset(tmp_path / "more", [("a", "b", 0.5), ("c", "d", 6)])


def test_the_layout_of_beir_is_read(texts: Path) -> None:
    data = read_retrieval(texts)
    assert dict(zip(data.corpus["id"], data.corpus["text"], strict=True)) == TEXTS
    assert data.relevant == {query: found for query, (_, found) in QUESTIONS.items()}


def test_other_splits_are_left_alone(texts: Path, tmp_path: Path) -> None:
    directory = write_texts(tmp_path / "texts")
    judged = (directory / "qrels" / "test.tsv").read_text()
    (directory / "qrels" / "dev.tsv").write_text(judged.replace("d1", "d9"))
    assert read_retrieval(directory).relevant == read_retrieval(texts).relevant


def test_images_may_be_paths_or_plain_bytes(tmp_path: Path) -> None:
    def written(name: str, images: pa.Array, suffix: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        table = pa.table({"id": ["a", "b"], "image": images})
        if suffix == ".jsonl":
            lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
            (directory / "corpus.jsonl").write_text("".join(lines))
        else:
            pq.write_table(table, directory / "corpus.parquet")
        (directory / "queries.csv").write_text("query-id,query\n1,what\n")
        (directory / "qrels.csv").write_text("query-id,corpus-id,score\n1,a,1\n")
        return directory

    file = io.BytesIO()
    page("tall").save(file, "PNG")
    as_bytes = pa.array([file.getvalue()] * 2)
    as_paths = pa.array(["pages/a.png", "pages/a.png"])
    for directory in (written("bytes", as_bytes, ".parquet"), written("paths", as_paths, ".jsonl")):
        if directory.name == "paths":
            (directory / "pages").mkdir()
            (directory / "pages" / "a.png").write_bytes(file.getvalue())
        data = read_retrieval(directory)
        assert [row["image"].size for row in data.corpus] == [PAGES["tall"][0]] * 2
    (tmp_path / "paths" / "pages" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png is not there"):
        read_dataset(tmp_path / "paths")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("corpus.jsonl", None, "holds no corpus"),
        ("corpus.jsonl", '{"_id": "d1"}\n', "neither text nor image"),
        ("corpus.jsonl", '{"text": "d1"}\n', "is its id"),
        ("corpus.jsonl", '{"id": "d1", "text": ""}\n{"id": "d1", "text": ""}\n', "'d1' 2 times"),
        ("corpus.jsonl", '{"id": "d1", "text": ""}\n{"id": "d2"}\n', "rows without text"),
        ("corpus.jsonl", "not json", "cannot be read"),
        ("queries.jsonl", '{"_id": "q9", "text": "a"}\n', "names 'q1' as query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td9\t1\n", "names 'd9' as corpus-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "no document"),
        ("qrels/test.tsv", "query-id\tcorpus-id\nq1\td1\n", "it needs"),
    ],
)
def test_a_directory_whose_parts_do_not_fit_is_refused(
    file: str, content: str | None, says: str, tmp_path: Path
) -> None:
    directory = write_texts(tmp_path / "texts")
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_text(content)
    with pytest.raises(DatasetError, match=says):
        read_dataset(directory)


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    one, other = write_texts(tmp_path / "one" / "texts"), write_texts(tmp_path / "other" / "texts")
    assert read_dataset(one).digest == read_dataset(other).digest
    with (other / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d7", "title": "", "text": "more"}\n')
    assert read_dataset(one).digest != read_dataset(other).digest


def test_a_place_without_a_dataset_says_what_one_is(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match="corpus, queries and qrels"):
            read_dataset(path)
