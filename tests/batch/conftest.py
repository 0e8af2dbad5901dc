import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

import serving
from serving.batch.job import Job, plan_job
from serving.batch.rows import Chunk
from serving.settings import BatchSettings
from tests.batch.corpus import texts, write_jsonl


@pytest.fixture(scope="session")
def model(merged_float32: Path) -> Path:
    return merged_float32 / "retrieval"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched engines are cancelled and restarted without waiting."""
    monkeypatch.setattr("serving.life._CANCEL_TIMEOUT_S", 0.05)
    monkeypatch.setattr("serving.supervisor._MAX_BACKOFF_S", 0.01)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray on this machine, with workers that import from this checkout."""
    root = str(Path(serving.__file__).parents[1])
    ray.init(
        address="local",
        num_cpus=6,
        object_store_memory=256 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={
            "env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        },
    )
    yield
    ray.shutdown()


@pytest.fixture
def job(tmp_path: Path, model: Path) -> tuple[Job, tuple[Chunk, ...]]:
    """A job over 40 texts in chunks of 8, and its chunks."""
    source = write_jsonl(tmp_path / "docs.jsonl", texts(40))
    settings = BatchSettings(rows_per_file=8, probe_interval_s=30)
    job, plan = plan_job(source, model, None, tmp_path / "out", settings)
    chunks = [
        chunk
        for section in plan.sections
        for chunk in section.chunks(
            range(section.first_chunk, section.first_chunk + section.num_chunks)
        )
    ]
    return job, tuple(chunks)
