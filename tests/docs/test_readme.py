"""Every block of code in the README runs."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, code in BLOCKS
    if language == "bash"
    for line in code.splitlines()
    if line.strip()
]
DEFAULT_URL = "http://127.0.0.1:8000"

FAKE_ENGINE = """
import serving.engine.start
from serving.engine.fake import FakeEngine


async def start_engine(directory, settings, *, num_engines):
    return FakeEngine(directory, settings)


serving.engine.start.start_engine = start_engine
serving.engine.start.runs_on_cpu = lambda: True

"""
# Replicas get this function by value.
FAKE_REPLICA_ENGINE = """
import serving.cluster.starting


async def start_replica_engine(directory, settings, shares):
    from serving.engine.fake import FakeEngine

    return FakeEngine(directory, settings)


serving.cluster.starting.start_replica_engine = start_replica_engine

"""
# Writes what the commands after it measure, and so runs with them.
(DATASET,) = (code for code in PYTHON if "write_page_dataset" in code)
EMBED = next(shlex.split(command) for command in COMMANDS if command.startswith("polyvec embed"))


@pytest.fixture(scope="module")
def newcomers_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the README's relative paths exist, as in a clone."""
    path = tmp_path_factory.mktemp("newcomer")
    for kept in ("mini", "serving"):
        (path / kept).symlink_to(ROOT / kept)
    return path


def run(command: list[str], directory: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_only_known_kinds_of_blocks_stand_in_the_readme() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", ""}
    assert len(PYTHON) >= 5
    assert {command.split()[0] for command in COMMANDS} == {"make", "polyvec"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    # Running them here would run this test again; CI runs `make test`, and the demo has its own test.
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.engine
def test_the_commands_run_in_the_order_of_the_readme(newcomers_directory: Path) -> None:
    commands = [shlex.split(c) for c in COMMANDS if c.startswith("polyvec")]
    offline = [c for c in commands if c[1] not in {"serve", "keys", "bench", "compare"}]
    assert [c[1] for c in offline] == ["merge", "merge", "verify", "verify", "encode", "embed"]
    outputs = {command[1]: run(command, newcomers_directory) for command in offline}
    assert (newcomers_directory / "merged" / "code" / "polyvec.json").is_file()
    assert "orange star sign: airport  [256]" in outputs["encode"]
    assert "1 rejected" in outputs["embed"]
    assert list((newcomers_directory / "vectors").glob("part-*.parquet"))


@contextmanager
def served(command: list[str], directory: Path) -> Iterator[str]:
    """Run `polyvec serve ...` with computable engines on a free port; its URL."""
    script = directory / "serve.py"
    fakes = FAKE_ENGINE + FAKE_REPLICA_ENGINE
    script.write_text(fakes + "from polyvec.cli import main\nmain()\n", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script.name, *command[1:], "--port", "0"],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("  curl "):
                yield line.split()[1].removesuffix("/v1/embeddings")
                break
        else:
            pytest.fail("".join(printed))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_servers_commands_run_in_the_order_of_the_readme(
    newcomers_directory: Path, merged_bfloat16: Path
) -> None:
    link_merged(newcomers_directory, merged_bfloat16)
    commands = [shlex.split(c) for c in COMMANDS if c.startswith("polyvec")]
    online = [c for c in commands if c[1] in {"serve", "keys"}]
    assert [c[1] for c in online] == ["serve", "keys", "keys", *["serve"] * 4]
    assert sum("--cluster" in c for c in online) == sum("--playground" in c for c in online) == 1
    for command in online:
        if command[1] == "keys":
            run(command, newcomers_directory)
            continue
        with served(command, newcomers_directory) as url:
            status = httpx.get(f"{url}/v1/models", trust_env=False).status_code
            page = httpx.get(f"{url}/playground", trust_env=False).status_code
        assert status == (401 if "--keys" in command else 200)
        assert page == (200 if "--playground" in command else 401 if "--keys" in command else 404)


def link_merged(directory: Path, merged: Path) -> None:
    if not (directory / "merged").exists():
        (directory / "merged").symlink_to(merged)


@pytest.fixture(scope="module")
def server_url(newcomers_directory: Path, merged_bfloat16: Path) -> Iterator[str]:
    link_merged(newcomers_directory, merged_bfloat16)
    with served(["polyvec", "serve", "merged"], newcomers_directory) as url:
        yield url


@pytest.mark.parametrize("at", [at for at, code in enumerate(PYTHON) if DEFAULT_URL in code])
def test_a_python_block_for_the_server_runs(
    at: int, newcomers_directory: Path, server_url: str
) -> None:
    script = newcomers_directory / f"block_{at}.py"
    script.write_text(PYTHON[at].replace(DEFAULT_URL, server_url), encoding="utf-8")
    assert run([sys.executable, script.name], newcomers_directory).strip()


def test_the_commands_that_measure_quality_run_in_the_order_of_the_readme(
    newcomers_directory: Path, merged_bfloat16: Path, server_url: str
) -> None:
    link_merged(newcomers_directory, merged_bfloat16)
    assert "num_pages=42, num_queries=42" in run(
        [sys.executable, "-c", DATASET], newcomers_directory
    )
    commands = [shlex.split(c) for c in COMMANDS if c.split()[1] in {"bench", "compare"}]
    named, *measuring = commands
    assert [c[1] for c in measuring] == ["bench", "bench", "compare"]
    script = newcomers_directory / "quality.py"
    script.write_text(FAKE_ENGINE + "from polyvec.cli import main\nmain()\n", encoding="utf-8")
    for command in measuring:
        words = [word.replace(DEFAULT_URL, server_url) for word in command[1:]]
        said = run([sys.executable, script.name, *words], newcomers_directory)
        assert "nDCG@10" in said or "ndcg_at_5" in said
    assert (newcomers_directory / "comparison" / "comparison.png").is_file()
    # What has to be fetched is not fetched by a test; the command finds the tasks and says what it lacks.
    done = subprocess.run(
        [sys.executable, script.name, *named[1:]],
        cwd=newcomers_directory,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "mteb/arxivqa_test_subsampled_beir" in done.stderr.splitlines()[-1]


@pytest.mark.engine
@pytest.mark.parametrize(
    "at",
    [at for at, code in enumerate(PYTHON) if DEFAULT_URL not in code and code != DATASET],
)
def test_a_python_block_runs(at: int, newcomers_directory: Path, merged_bfloat16: Path) -> None:
    link_merged(newcomers_directory, merged_bfloat16)
    script = newcomers_directory / f"block_{at}.py"
    if "vectors" in PYTHON[at] and not (newcomers_directory / "vectors").exists():
        run(EMBED, newcomers_directory)
    # The first block starts real engines; for the others the computable engine stands in, which costs
    # no minute each.
    script.write_text((FAKE_ENGINE if at > 0 else "") + PYTHON[at], encoding="utf-8")
    assert run([sys.executable, script.name], newcomers_directory).strip()
