"""`polyvec bench quality` as a user meets it: results, and mistakes in one line."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import serving.engine.start
from serving import EngineSettings
from serving.engine.fake import FakeEngine
from tests.benchmarks.quality.corpora import write_pages, write_pairs
from tests.cli.command import Polyvec
from tests.http.live import Live, live_server


@pytest.fixture(scope="module")
def live(merged_float32: Path) -> Iterator[Live]:
    with live_server(merged_float32) as server:
        yield server


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start_engine(
        directory: Path, settings: EngineSettings, *, num_engines: int
    ) -> FakeEngine:
        del num_engines
        return FakeEngine(directory, settings)

    monkeypatch.setattr(serving.engine.start, "start_engine", start_engine)
    monkeypatch.setattr(serving.engine.start, "runs_on_cpu", lambda: True)


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    return write_pages(tmp_path / "pages"), write_pairs(tmp_path / "pairs")


@pytest.mark.usefixtures("fake_engines")
def test_a_directory_is_measured_and_the_figures_are_printed(
    polyvec: Polyvec, directories: tuple[Path, Path], merged_float32: Path, tmp_path: Path
) -> None:
    pages, pairs = directories
    done = polyvec(
        *("bench", "quality", merged_float32, "--task-dir", pages, "--task-dir", pairs),
        *("--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    model, first, second, where = done.stdout.splitlines()
    assert model.startswith("local/jina-v4-mini ")
    assert first.split()[:3] == ["pages", "retrieval", "ndcg_at_5"]
    assert second.split()[:3] == ["pairs", "text-matching", "cosine_spearman"]
    results = Path(where.removeprefix("results in "))
    written = json.loads((results / "pages.json").read_text(encoding="utf-8"))
    (scores,) = written["scores"]["test"]
    assert float(first.split()[3]) == pytest.approx(scores["main_score"], abs=1e-5)
    # The paper's area, which is the default, is no experiment.
    assert results.parent.parent == tmp_path / "out" / "results"


def test_a_server_is_measured_with_the_key_of_the_environment(
    polyvec: Polyvec,
    live: Live,
    directories: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLYVEC_API_KEY", "a-key-that-nobody-asks-for")
    done = polyvec(
        *("bench", "quality", "--server", live.url, "--task-dir", directories[0]),
        *("--vectors", "multi", "--precision", "int8", "--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    place = done.stdout.splitlines()[-1]
    assert place.endswith("max_pixels_602112__precision_int8__vectors_multi")


def test_a_key_in_the_environment_is_no_misspelt_setting(
    fake_engines: None,
    polyvec: Polyvec,
    directories: tuple[Path, Path],
    merged_float32: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del fake_engines
    arguments = ["bench", "quality", merged_float32, "--task-dir", directories[0]]
    arguments += ["--output", tmp_path / "out"]
    monkeypatch.setenv("POLYVEC_API_KEY", "key")
    assert polyvec(*arguments).returncode == 0
    monkeypatch.setenv("POLYVEC_API_KEYS", "key")
    assert "POLYVEC_API_KEYS" in polyvec(*arguments).stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("MODELS", "--tasks", "VidoreDocVQARetrievl"), "Near: VidoreDocVQARetrieval"),
        (("MODELS", "--task-dir", "nowhere"), "nowhere is not a directory"),
        (("MODELS", "--tasks", "STS12", "--vectors", "multi"), "--vectors single"),
        (("MODELS/code", "--tasks", "STS12"), "'text-matching'; here are ['code']"),
        (("MODELS", "--tasks", "STS12", "--adapter", "poetry"), "the adapter 'poetry'"),
        (("MODELS", "--tasks", "STS12", "--dimensions", "7"), "one of [8, 16, 32, 64], not 7"),
        (("MODELS", "--tasks", "STS12,NoSuch"), "'NoSuch' is no task"),
        (("nowhere", "--tasks", "STS12"), "nowhere does not exist"),
        (("--server", "http://127.0.0.1:9", "--tasks", "STS12"), "does not answer"),
    ],
)
@pytest.mark.usefixtures("fake_engines")
def test_a_mistake_is_one_line(
    options: tuple[str, ...],
    says: str,
    polyvec: Polyvec,
    merged_float32: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = polyvec("bench", "quality", *(o.replace("MODELS", str(merged_float32)) for o in options))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("polyvec: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("MODELS",), "Nothing to measure"),
        (("--tasks", "STS12"), "Pass MODELS, or --server URL"),
        (("MODELS", "--server", "http://a", "--tasks", "STS12"), "Pass MODELS, or --server URL"),
        (("--server", "http://a", "--max-pixels", "100", "--tasks", "STS12"), "server's own"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    options: tuple[str, ...],
    says: str,
    polyvec: Polyvec,
    merged_float32: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    done = polyvec("bench", "quality", *(o.replace("MODELS", str(merged_float32)) for o in options))
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (("bench", "quality", "m", "--tasks", "STS12"), "mteb"),
        (("compare", "a", "b", "--data", "d"), "pytrec_eval and matplotlib"),
    ],
)
def test_what_is_not_installed_is_one_line(
    command: tuple[str, ...], missing: str, polyvec: Polyvec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str) -> object:
        return None if name in missing.split(" and ") else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    done = polyvec(*command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert missing in line
    assert "pip install 'polyvec[quality]'" in line
