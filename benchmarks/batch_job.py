"""A batch job with an engine whose service times are fixed, as a process that can be measured or killed.

    python -m benchmarks.batch_job SOURCE --merged OUT/retrieval --output VECTORS --text-ms 0.1

The engine sleeps as long as a device would compute, one prompt after the other, and answers with vectors made of the
prompts' lengths. It knows the Engine protocol and the public API of jobs.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from serving.cluster.batch import embed_corpus
from serving.engine.protocol import Engine, ImagePrompt, Outcome, Pooled, Prompt, Want
from serving.manifest import read_manifest
from serving.settings import BatchSettings, EngineSettings


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """What a prompt takes of a device that has one at a time."""

    text_s: float
    page_s: float = 0.025


class SleepingEngine:
    """Computes nothing, for as long as a device would compute."""

    def __init__(self, directory: Path, times: ServiceTimes) -> None:
        manifest = read_manifest(directory)
        self.max_tokens: int = manifest.max_text_tokens
        self._hidden_size = manifest.hidden_size
        self._times = times
        self._free_at_s = 0.0

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Sleep until the device has had its time for `prompts`, after what came before."""
        loop = asyncio.get_running_loop()
        # The device's own clock: what a timer is late is no time of the device's.
        begins_s = max(loop.time(), self._free_at_s)
        self._free_at_s = begins_s + sum(map(self._seconds, prompts))
        await asyncio.sleep(self._free_at_s - loop.time())
        return [self._outcome(prompt, want) for prompt in prompts]

    async def check_health(self) -> None:
        """It is always well."""

    async def close(self) -> None:
        """There is nothing to stop."""

    def _seconds(self, prompt: Prompt) -> float:
        return self._times.page_s if isinstance(prompt, ImagePrompt) else self._times.text_s

    def _outcome(self, prompt: Prompt, want: Want) -> Outcome:
        vector = torch.full((want.dim or self._hidden_size,), float(len(prompt.token_ids)))
        return Pooled(prompt.token_ids, vector / vector.norm(), None)


async def _start(directory: Path, settings: EngineSettings, *, times: ServiceTimes) -> Engine:
    del settings
    return SleepingEngine(directory, times)


def start_sleeping(times: ServiceTimes) -> Callable[[Path, EngineSettings], Awaitable[Engine]]:
    """A start function of engines with these service times."""
    return partial(_start, times=times)


def write_corpus(path: Path, num_rows: int, num_words: int = 12) -> Path:
    """A JSONL file of different texts of about `num_words` words."""
    words = " ".join(f"word{n}" for n in range(num_words - 3))
    with path.open("w", encoding="utf-8") as file:
        for n in range(num_rows):
            file.write(json.dumps({"id": f"row-{n}", "text": f"text number {n} {words}"}) + "\n")
    return path


def main() -> None:
    """Run the job, or go on with it; prints its summary as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--merged", type=Path, required=True, help="one merged task")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text-ms", type=float, default=0.1)
    parser.add_argument("--rows-per-file", type=int, default=1024)
    options = parser.parse_args()
    summary = embed_corpus(
        options.source,
        options.merged,
        options.output,
        BatchSettings(rows_per_file=options.rows_per_file),
        start=start_sleeping(ServiceTimes(options.text_ms / 1000)),
    )
    print(json.dumps(asdict(summary), default=str))


if __name__ == "__main__":
    main()
