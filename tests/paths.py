"""Where the tests' own data lies."""

from pathlib import Path

GOLDEN_CHECKPOINT = Path(__file__).parent / "golden" / "jina-v4-mini"
GOLDEN_OUTPUTS = GOLDEN_CHECKPOINT / "golden"
