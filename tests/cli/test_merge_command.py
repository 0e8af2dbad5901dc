"""`polyvec merge` and `polyvec verify` as a user meets them: exit status, stdout, stderr."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.command import Polyvec
from tests.paths import GOLDEN_CHECKPOINT


def test_the_module_runs_as_the_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "polyvec",
        "merge",
        str(GOLDEN_CHECKPOINT),
        str(tmp_path / "o"),
    ]
    done = subprocess.run([*command, "--task", "no"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("polyvec: ")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_plan_and_writes_nothing(polyvec: Polyvec, tmp_path: Path) -> None:
    done = polyvec("merge", GOLDEN_CHECKPOINT, tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "22 LoRA pairs" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_merge_then_verify_then_damage(polyvec: Polyvec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    merged = polyvec("merge", GOLDEN_CHECKPOINT, out, "--task", "code", "--dtype", "float16")
    assert merged.returncode == 0, merged.stderr
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["code"]
    assert polyvec("verify", out).returncode == 0
    assert polyvec("verify", out, "--source", GOLDEN_CHECKPOINT).returncode == 0

    shard = next((out / "code").glob("model-00001*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(data)
    damaged = polyvec("verify", out)
    assert damaged.returncode == 1
    assert shard.name in damaged.stdout
    assert "Traceback" not in damaged.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["merge", "/nowhere/model", "out"], "/nowhere/model"),
        (["merge", str(GOLDEN_CHECKPOINT), "out", "--task", "poetry"], "poetry"),
        (["merge", str(GOLDEN_CHECKPOINT), "out", "--adapter", "code"], "NAME=DIR"),
        (["merge", str(GOLDEN_CHECKPOINT), "out", "--dtype", "int4"], "int4"),
        (["verify", "/nowhere/merged"], "/nowhere/merged"),
        (["verify", str(GOLDEN_CHECKPOINT)], "polyvec merge"),
        (["verify", "/nowhere", "--forward"], "--source"),
        (["encode", "--model", "/nowhere", "text"], "/nowhere does not exist"),
        (["encode", "--model", str(GOLDEN_CHECKPOINT), "text"], "not merged yet"),
        (["encode", "--model", "/nowhere"], "Nothing to embed"),
        (["encode", "--model", "/nowhere", "--image", "https://a/b.png"], "is a URL"),
        (["encode", "--model", "/nowhere", "--image", "/no/such.png"], "cannot be read"),
        (["encode", "--model", "/nowhere", "--image", "/dev/zero"], "is a character device"),
        (["encode", "--model", "/nowhere", "--image", "/tmp"], "/tmp is a directory"),
        (["encode", "--model", "/nowhere", "text", "--output", "a.parquet"], ".npz or .jsonl"),
        (["encode", "--model", "/nowhere", "text", "--output", "/no/dir/a.npz"], "does not exist"),
    ],
)
def test_a_mistake_gets_a_message_and_not_a_traceback(
    polyvec: Polyvec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    # Wide enough that the command line's boxes do not break the sentence.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    done = polyvec(*arguments)
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_answers_without_loading_torch() -> None:
    code = "import sys, polyvec.cli; sys.exit(int('torch' in sys.modules or 'vllm' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--task", "code", "--dim", "7", "text"], "--dim must be one of [8, 16, 32, 64]"),
        (["--task", "code", "--dim", "8", "--multivector", "text"], "--dim is for single vectors"),
        (["text"], "Pass --task, one of"),
        (["--task", "poetry", "text"], "holds the tasks"),
    ],
)
def test_encode_checks_everything_before_it_starts_an_engine(
    polyvec: Polyvec, merged_float32: Path, arguments: list[str], says: str
) -> None:
    done = polyvec("encode", "--model", merged_float32, *arguments)
    assert done.returncode == 1
    assert says in done.stderr


def test_the_demo_replaces_nothing_but_an_earlier_demo(polyvec: Polyvec, tmp_path: Path) -> None:
    (tmp_path / "merged" / "code").mkdir(parents=True)
    (tmp_path / "merged" / "code" / "thesis.txt").write_text("years of work")
    done = polyvec("demo", GOLDEN_CHECKPOINT, "--port", "0", "--out", tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "merged" / "code" / "thesis.txt").read_text() == "years of work"


def test_the_version_is_that_of_the_distribution(polyvec: Polyvec) -> None:
    done = polyvec("--version")
    assert (done.returncode, done.stdout) == (0, f"{version('polyvec')}\n")
