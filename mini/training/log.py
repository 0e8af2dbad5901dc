"""The training log: one JSON object a line, appended as training goes."""

import json
import time
from pathlib import Path


class Log:
    """Appends what a stage measured to a file, with the seconds since the stage began."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage, self._started = path, stage, time.monotonic()

    def write(self, step: int, **figures: float) -> None:
        """One line: stage, step, seconds, and the figures, rounded to four digits."""
        line = {
            "stage": self._stage,
            "step": step,
            "seconds": round(time.monotonic() - self._started),
            **{name: round(value, 4) for name, value in figures.items()},
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
