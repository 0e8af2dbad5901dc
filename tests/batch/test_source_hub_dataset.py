import io
from pathlib import Path

import datasets
import pytest
from PIL import Image

from serving.batch.rows import Row
from serving.errors import SourceError
from serving.inputs import PageImage, Text
from tests.batch.sources import ids, planned, read, read_source, texts_of


def numbered(num_rows: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": [f"text {n}" for n in range(num_rows)]})


def test_rows_of_a_dataset_come_back_in_order_from_all_its_shards(tmp_path: Path) -> None:
    source = tmp_path / "corpus"
    numbered(500).save_to_disk(source, num_shards=3)
    for rows_per_file in (7, 1000):
        plan = planned(source, rows_per_file=rows_per_file)
        assert read(plan, seed=1) == [
            Row(f"corpus:{n + 1}", f"corpus:{n + 1}", Text(f"text {n}")) for n in range(500)
        ]


def test_a_dataset_that_was_selected_from_is_read_as_selected(tmp_path: Path) -> None:
    numbered(50).select([3, 1, 2]).with_format("numpy").save_to_disk(tmp_path / "corpus")
    assert texts_of(read_source(tmp_path / "corpus")) == ["text 3", "text 1", "text 2"]


def test_images_stay_encoded_and_mix_with_texts(tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), "red"), None]
    dataset = datasets.Dataset.from_dict(
        {"id": [7, 8], "text": [None, "a text"], "image": images},
        features=datasets.Features(
            {
                "id": datasets.Value("int32"),
                "text": datasets.Value("string"),
                "image": datasets.Image(),
            }
        ),
    )
    dataset.save_to_disk(tmp_path / "corpus")
    image, text = read_source(tmp_path / "corpus")
    assert text == Row("8", "corpus:2", Text("a text"))
    assert isinstance(image, Row)
    assert image.id == "7"
    assert isinstance(image.content, PageImage)
    assert isinstance(image.content.source, bytes)
    with Image.open(io.BytesIO(image.content.source)) as decoded:
        assert decoded.getpixel((0, 0)) == (255, 0, 0)


def test_a_split_is_read_and_names_its_rows(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": numbered(3), "test": numbered(2)})
    both.save_to_disk(tmp_path / "both")
    datasets.DatasetDict({"train": numbered(3)}).save_to_disk(tmp_path / "one")
    assert ids(read_source(tmp_path / "both", split="test")) == ["test:1", "test:2"]
    train = read_source(tmp_path / "one")
    assert ids(train) == ["train:1", "train:2", "train:3"]
    # Also without its brothers.
    assert read_source(tmp_path / "both" / "train") == train


def test_splits_that_are_not_said_or_not_there_are_refused(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": numbered(3), "test": numbered(2)})
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(SourceError, match=r"splits train, test\. Say which"):
        planned(tmp_path / "both")
    with pytest.raises(SourceError, match="no split 'dev', but train, test"):
        planned(tmp_path / "both", split="dev")
    with pytest.raises(SourceError, match="without splits"):
        planned(tmp_path / "both" / "test", split="test")


def test_a_dataset_that_changes_or_is_damaged_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "corpus"
    numbered(30).save_to_disk(source)
    plan = planned(source, rows_per_file=10)
    (section,) = plan.sections
    reading = section.chunks(range(3))
    next(reading)
    (shard,) = source.glob("*.arrow")
    (source / "state.json").touch()
    with pytest.raises(SourceError, match="corpus has changed"):
        next(reading)
    shard.write_bytes(b"no arrow")
    with pytest.raises(SourceError, match="cannot be read"):
        planned(source)
    shard.unlink()
    with pytest.raises(SourceError, match=r"no \.arrow file"):
        planned(source)


def test_a_dataset_without_rows_or_columns_to_read_is_refused(tmp_path: Path) -> None:
    numbered(0).save_to_disk(tmp_path / "empty")
    with pytest.raises(SourceError, match="no rows"):
        planned(tmp_path / "empty")
    numbered(3).rename_column("text", "body").save_to_disk(tmp_path / "other")
    with pytest.raises(SourceError, match="Its columns: body"):
        planned(tmp_path / "other")
    assert len(read_source(tmp_path / "other", text_column="body")) == 3
