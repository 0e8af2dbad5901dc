"""Where polyvec-mini lies."""

from pathlib import Path

CHECKPOINT = Path(__file__).parents[2] / "mini" / "polyvec-mini"
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "mini-quality-cpu.json"
