"""The sha256 sums that a download from the hub leaves beside its files.

The hub's cache names a blob after its sha256; a download into a directory records the sum under
.cache/huggingface/download. Deliberately knows no network and no tensor.
"""

import hashlib
import re
from pathlib import Path

from merge_tools.errors import CorruptShard, SourceError

__all__ = ["check_known_hashes", "known_hash", "recorded_commit"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def recorded_commit(root: Path) -> str | None:
    """The commit that a download into `root` recorded for config.json, if it did."""
    lines = _metadata(root / "config.json", root)
    return lines[0] if lines and _COMMIT.fullmatch(lines[0]) else None


def known_hash(path: Path, root: Path) -> str | None:
    """The recorded sha256 of one file under `root`, or None when nothing recorded it."""
    if path.is_symlink() and _SHA256.fullmatch(path.resolve().name):
        return path.resolve().name
    lines = _metadata(path, root)
    if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip('"')):
        return lines[1].strip('"')
    return None


def check_known_hashes(root: Path, *, download: Path) -> None:
    """Compares every weight file in `root` with its recorded sha256.

    Args:
        root: the directory whose weights are checked.
        download: the directory that was downloaded, `root` or one above it.

    Raises:
        CorruptShard: a file differs.
        SourceError: nothing recorded a hash, so there is nothing to check against.
    """
    hashes = {path: known_hash(path, download) for path in sorted(root.glob("*.safetensors"))}
    if not any(hashes.values()):
        raise SourceError(
            f"No sha256 is recorded for any weight file in {root}: only downloads made by "
            "huggingface_hub record them. Leave the hash check out."
        )
    for path, expected in hashes.items():
        if expected is None:
            continue
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise CorruptShard(
                f"{path} is damaged: sha256 is {got}, expected {expected}. Fetch the file again."
            )


def _metadata(path: Path, root: Path) -> list[str]:
    relative = path.relative_to(root)
    record = root / ".cache" / "huggingface" / "download" / f"{relative}.metadata"
    return record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
