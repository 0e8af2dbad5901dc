"""Jobs on a real Ray: chunks to files, engines that die, and what ends a job."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from serving.batch.keeper import StartEngine
from serving.batch.output import Output, staging_of
from serving.batch.summary import Progress, Summary
from serving.cluster.batch import embed_corpus
from serving.errors import EngineStartError, OutputError, SettingsError, SourceError
from serving.settings import BatchSettings
from tests.batch.corpus import Made, made, texts, write_jsonl
from tests.batch.engines import Trouble, start_fake, start_none, start_on_full_disk, troubled
from tests.conftest import Golden
from tests.http.documents import picture_pdf

pytestmark = pytest.mark.usefixtures("local_ray")
NUM_ROWS = 300


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "docs.jsonl", texts(NUM_ROWS))


def embed(
    source: Path,
    model: Path,
    output: Path,
    start: StartEngine = start_fake,
    on_progress=None,
    **settings: object,
) -> Summary:
    checked = BatchSettings.model_validate({"rows_per_file": 16} | settings)
    return embed_corpus(source, model, output, checked, start=start, on_progress=on_progress)


def whole(output: Path) -> Made:
    """What was made, after checking that every row is there once."""
    found = made(output)
    assert found.ids == {f"row-{n}": 1 for n in range(NUM_ROWS)}
    return found


def test_two_engines_embed_a_corpus_of_everything(
    tmp_path: Path, model: Path, golden: Golden
) -> None:
    (tmp_path / "two.pdf").write_bytes(picture_pdf([(255, 0, 0), (0, 0, 255)]))
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 and no more")
    odd: Mapping[int, Mapping[str, object]] = {
        7: {"image": str(golden.images[0])},
        40: {"image": "none.png"},
        41: {"pdf": "two.pdf"},
        42: {"pdf": "bad.pdf"},
    }
    rows = [
        {"id": f"row-{n}", **odd[n]} if n in odd else {"id": f"row-{n}", "text": f"text {n}"}
        for n in range(NUM_ROWS)
    ]
    source = write_jsonl(tmp_path / "docs.jsonl", rows)
    seen: list[Progress] = []
    summary = embed(source, model, tmp_path / "out", engines=2, on_progress=seen.append)
    found = whole(tmp_path / "out")
    assert found.rejected.keys() == {("row-40", None), ("row-42", None)}
    assert found.embedded["row-41", 2] == 1
    assert (summary.rows, summary.embedded, summary.pages, summary.rejected) == (300, 299, 2, 2)
    assert summary.num_files == 19
    assert [seen[0].rows, seen[-1].rows] == [0, NUM_ROWS]
    assert [one.rows for one in seen] == sorted(one.rows for one in seen)
    written = json.loads(Output(tmp_path / "out").summary_file.read_text())
    assert written["tokens"] == summary.tokens > 0


def test_a_finished_job_starts_nothing_when_it_is_started_again(
    tmp_path: Path, source: Path, model: Path
) -> None:
    first = embed(source, model, tmp_path / "out")
    again = embed(source, model, tmp_path / "out", start_none)
    assert again.new_rows == 0
    assert (again.rows, again.resumed_rows, again.tokens) == (NUM_ROWS, NUM_ROWS, first.tokens)


def test_a_job_goes_on_where_it_was_ended_and_only_there(
    tmp_path: Path, source: Path, model: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.rows >= NUM_ROWS // 3:
            raise KeyboardInterrupt

    output = Output(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        embed(source, model, output.root, on_progress=interrupt)
    parts = {path: path.stat().st_mtime_ns for path in output.root.glob("part-*")}
    assert len(parts) >= NUM_ROWS // 3 // 16
    with pytest.raises(SettingsError, match="dim is 64 there and 32 now"):
        embed(source, model, output.root, dim=32)
    summary = embed(source, model, output.root)
    whole(output.root)
    assert summary.resumed_rows >= NUM_ROWS // 3
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert output.leftovers() == []


def test_what_a_process_of_an_interrupted_run_still_wrote_is_not_left(
    tmp_path: Path, source: Path, model: Path
) -> None:
    output = Output(tmp_path / "out")

    def write_late(progress: Progress) -> None:
        if progress.rows == NUM_ROWS:
            staging_of(output.part(7)).write_bytes(b"half a file")

    embed(source, model, output.root, on_progress=write_late)
    whole(output.root)
    assert output.leftovers() == []


def test_an_actor_that_is_killed_is_replaced_and_its_chunks_are_done_again(
    tmp_path: Path, source: Path, model: Path
) -> None:
    trouble = Trouble(poison="number 100", kills=True, once=tmp_path / "killed")
    embed(source, model, tmp_path / "out", troubled(trouble))
    assert (tmp_path / "killed").exists()
    assert not whole(tmp_path / "out").rejected


def test_a_row_that_ends_the_whole_process_is_rejected_and_no_other(
    tmp_path: Path, source: Path, model: Path
) -> None:
    trouble = Trouble(poison="number 100", kills=True)
    summary = embed(source, model, tmp_path / "out", troubled(trouble))
    assert whole(tmp_path / "out").rejected.keys() == {("row-100", None)}
    assert summary.rejected == 1


def test_an_engine_that_does_not_start_ends_the_job_with_its_own_words(
    tmp_path: Path, source: Path, model: Path
) -> None:
    with pytest.raises(EngineStartError, match="There is no such engine"):
        embed(source, model, tmp_path / "out", start_none)


def test_engines_that_would_wait_for_ever_are_refused(
    tmp_path: Path, source: Path, model: Path
) -> None:
    with pytest.raises(SettingsError, match="The engines want 2 GPUs, and Ray has 0"):
        embed(source, model, tmp_path / "out", engines=2, gpus_per_engine=1)


def test_a_disk_that_fills_up_stops_the_job_which_then_goes_on(
    tmp_path: Path, source: Path, model: Path
) -> None:
    with pytest.raises(OutputError, match=r"is full .*run the same command again"):
        embed(source, model, tmp_path / "out", start_on_full_disk, rows_per_file=64)
    assert not list((tmp_path / "out").glob("part-*"))
    embed(source, model, tmp_path / "out", rows_per_file=64)
    assert not whole(tmp_path / "out").rejected


def test_a_source_that_changes_meanwhile_stops_the_job(
    tmp_path: Path, source: Path, model: Path
) -> None:
    def change(progress: Progress) -> None:
        if progress.rows == 0:
            write_jsonl(source, texts(NUM_ROWS + 1))

    with pytest.raises(SourceError, match="has changed"):
        embed(source, model, tmp_path / "out", on_progress=change)
    with pytest.raises(SettingsError, match="the number of rows is 300 there and 301 now"):
        embed(source, model, tmp_path / "out")
