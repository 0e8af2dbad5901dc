"""A run in its directory: begun, continued, refused."""

import json
from pathlib import Path

import pytest

from serving.batch.identity import DECIDING, IRRELEVANT, RESOLVED, Identity
from serving.batch.job import Job, plan_job
from serving.batch.output import Output, staging_of
from serving.batch.part import PartWriter
from serving.batch.run import open_run
from serving.batch.schema import VectorFormat
from serving.errors import (
    CheckpointError,
    OutputError,
    SettingsError,
    SourceError,
    TaskError,
)
from serving.manifest import read_manifest
from serving.settings import BatchSettings
from tests.batch.corpus import texts, write_jsonl


def identity_of(model: Path, **settings: object) -> Identity:
    checked = BatchSettings.model_validate(settings)
    return Identity.of(read_manifest(model), checked, source="s", num_rows=10, num_chunks=2)


def write_part(output: Output, index: int) -> None:
    PartWriter(output, index, VectorFormat("float32", False, 64), b"{}").finish(5)


def test_every_setting_is_part_of_a_run_or_is_not() -> None:
    sorted_out = [*DECIDING, *RESOLVED, *IRRELEVANT]
    assert sorted(sorted_out) == sorted(BatchSettings.model_fields)


def test_a_setting_given_as_its_default_is_the_same_run(model: Path) -> None:
    manifest = read_manifest(model)
    given = identity_of(
        model,
        prompt="passage",
        dim=manifest.hidden_size,
        dtype="float32",
        max_pixels=manifest.image.max_pixels,
        max_text_tokens=manifest.max_text_tokens,
        engines=4,
        reserved_cores=0,
    )
    assert given == identity_of(model)


def test_a_run_is_continued_and_another_one_refused(tmp_path: Path, model: Path) -> None:
    output = Output(tmp_path / "out")
    with open_run(output, identity_of(model)) as run:
        assert bytes(run.done) == b"\0\0"
        write_part(output, 1)
    with open_run(output, identity_of(model)) as run:
        assert bytes(run.done) == b"\0\1"
        assert run.before.rows == 5
        assert not run.is_finished
    other = identity_of(model, dim=32, vector_dtype="int8")
    with (
        pytest.raises(
            SettingsError, match="dim is 64 there and 32 now; vector_dtype is 'float32' "
        ),
        open_run(output, other),
    ):
        pass


def test_a_run_with_another_checkpoint_is_refused(
    tmp_path: Path, model: Path, merged_bfloat16: Path
) -> None:
    with open_run(Output(tmp_path), identity_of(model)):
        pass
    with (
        pytest.raises(SettingsError, match="the model's digest is"),
        open_run(Output(tmp_path), identity_of(merged_bfloat16 / "retrieval")),
    ):
        pass


def test_leftovers_of_an_interruption_are_removed(tmp_path: Path, model: Path) -> None:
    output = Output(tmp_path)
    with open_run(output, identity_of(model)):
        staged = [
            staging_of(output.part(0)),
            staging_of(output.rejected(0)),
            staging_of(output.run_file),
        ]
        for path in staged:
            path.write_bytes(b"half")
        (output.attempts / "00000000").write_bytes(b"..")
    with open_run(output, identity_of(model)):
        assert not any(path.exists() for path in staged)
        assert list(output.attempts.iterdir()) == []


def test_two_runs_do_not_write_to_one_output(tmp_path: Path, model: Path) -> None:
    with (
        open_run(Output(tmp_path), identity_of(model)),
        pytest.raises(OutputError, match="being written to by another run"),
        open_run(Output(tmp_path), identity_of(model)),
    ):
        pass
    with open_run(Output(tmp_path), identity_of(model)):
        pass


def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(OutputError, match=r"holds 'thesis\.tex' and more"),
        open_run(Output(tmp_path), identity_of(model)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_broken_off_before_it_said_what_it_was_is_no_obstacle(
    tmp_path: Path, model: Path
) -> None:
    (tmp_path / "_polyvec").mkdir()
    with open_run(Output(tmp_path), identity_of(model)) as run:
        assert json.loads(run.output.run_file.read_text())["num_rows"] == 10


def test_an_answer_given_twice_counts_once(tmp_path: Path, model: Path) -> None:
    output = Output(tmp_path)
    with open_run(output, identity_of(model)) as run:
        PartWriter(output, 0, VectorFormat("float32", False, 64), b"{}").finish(5)
        tally = run.tally.__class__(rows=5)
        assert run.note(0, tally)
        assert not run.note(0, tally)
        assert run.tally.rows == 5


def plan(tmp_path: Path, model: Path | str, output: str | Path = "out", **settings: object) -> Job:
    source = write_jsonl(tmp_path / "docs.jsonl", texts(3))
    checked = BatchSettings.model_validate(settings)
    return plan_job(source, model, None, tmp_path / output, checked)[0]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"dim": 33}, TaskError, "Invalid dim: 33"),
        ({"prompt": "poem"}, TaskError, "Invalid prompt: poem"),
        ({"dim": 32, "vectors": "multi"}, SettingsError, "multi-vectors have one dimension"),
        ({"max_text_tokens": 10**6}, SettingsError, "max_text_tokens is 1000000"),
        (
            {"max_text_tokens": 64, "max_model_tokens": 32},
            SettingsError,
            "The first must be at most the second",
        ),
    ],
)
def test_what_no_row_could_satisfy_is_refused_at_once(
    tmp_path: Path, model: Path, settings: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        plan(tmp_path, model, **settings)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_are_refused_by_name(tmp_path: Path, merged_float32: Path) -> None:
    with pytest.raises(TaskError, match="holds the tasks"):
        plan(tmp_path, merged_float32)
    with pytest.raises(CheckpointError, match="does not exist"):
        plan(tmp_path, tmp_path / "none")
    model, settings = merged_float32 / "retrieval", BatchSettings()
    with pytest.raises(OutputError, match="s3://bucket/out is a URL"):
        plan_job(tmp_path, model, None, "s3://bucket/out", settings)
    with pytest.raises(SourceError):
        plan_job(tmp_path / "none.jsonl", model, None, tmp_path / "out", settings)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        plan(tmp_path, model, "file")


def test_an_output_inside_its_source_is_refused(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "docs.jsonl", texts(3))
    with pytest.raises(OutputError, match="lies in the source"):
        plan_job(tmp_path, model, None, tmp_path / "out", BatchSettings())
