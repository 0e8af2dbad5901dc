"""A merged checkpoint against its own manifest: files, headers, tensors, digests.

Deliberately knows no source and no arithmetic.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from merge_tools.buffers import allocate, bytes_of
from merge_tools.digest import combined, file_digest, pieces_of, shard_digest
from merge_tools.errors import MergeToolsError
from merge_tools.executor import Progress
from merge_tools.manifest import MANIFEST_FILE, Manifest
from merge_tools.names import PROJECTOR
from merge_tools.plan import PROJECTOR_FILE
from merge_tools.reading import Reader
from merge_tools.shards import StoredTensor, read_shard
from merge_tools.signals import held_signals, let_signals_through

__all__ = ["DigestCache", "check_integrity", "stored_tensors"]

NUM_WORKERS = 3
SUFFIX = ".safetensors"


@dataclass(slots=True)
class DigestCache:
    """Tensor digests of weight files by inode, so that a file shared by tasks is read once."""

    by_inode: dict[tuple[int, int], Mapping[str, str]] = field(default_factory=dict)


def stored_tensors(directory: Path, file: str) -> Mapping[str, StoredTensor]:
    """The tensors of one weight file under the names the manifest gives them.

    Raises:
        CorruptShard: the header is damaged.
        UnsupportedBase: the header names a dtype that no merge writes.
    """
    prefix = f"{PROJECTOR}." if file == PROJECTOR_FILE else ""
    return {prefix + name: tensor for name, tensor in read_shard(directory / file).items()}


def check_integrity(
    directory: Path,
    manifest: Manifest,
    cache: DigestCache,
    *,
    with_weights: bool,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Every way in which the directory differs from its manifest.

    Args:
        directory: the checkpoint.
        manifest: its polyvec.json.
        cache: digests of files that several checkpoints share.
        with_weights: also read all weights and compare their digests.
        progress: called with (bytes done, bytes in all) while weights are read.
    """
    present = {path.name for path in directory.iterdir()}
    for name in sorted(present - manifest.files.keys() - {MANIFEST_FILE}):
        yield f"{name} is extra: no merge wrote it. Move it away."
    listed: set[str] = set()
    for name, record in manifest.files.items():
        if name not in present:
            yield f"{name} is missing. Merge again."
        elif (size := (directory / name).stat().st_size) != record.bytes:
            yield f"{name} has {size} bytes, expected {record.bytes}: it is damaged. Merge again."
        elif not name.endswith(SUFFIX):
            if file_digest(directory / name) != record.xxh3_128:
                yield f"{name} has been changed since the merge. Merge again."
        else:
            yield from _check_header(directory, name, manifest, listed)
            if with_weights:
                yield from _check_weights(directory, name, manifest, cache, progress)
    missing = {n for n, t in manifest.tensors.items() if t.file in present} - listed
    for name in sorted(missing):
        yield f"The tensor {name} is missing from {manifest.tensors[name].file}. Merge again."


def _check_header(
    directory: Path, file: str, manifest: Manifest, listed: set[str]
) -> Iterator[str]:
    try:
        tensors = stored_tensors(directory, file)
    except MergeToolsError as problem:
        yield f"{problem}"
        listed.update(name for name, record in manifest.tensors.items() if record.file == file)
        return
    for name, tensor in tensors.items():
        listed.add(name)
        record = manifest.tensors.get(name)
        if record is None or record.file != file:
            yield f"The tensor {name} in {file} is extra: no merge wrote it. Merge again."
        elif (tensor.dtype.name, tensor.shape) != (record.dtype, record.shape):
            yield (
                f"The tensor {name} in {file} is {tensor.dtype.name} {tensor.shape}, expected "
                f"{record.dtype} {record.shape}. Merge again."
            )
    recorded = [manifest.tensors[name].xxh3_128 for name in tensors if name in manifest.tensors]
    if shard_digest(_header(directory / file), recorded) != manifest.files[file].xxh3_128:
        yield f"The header of {file} has been changed since the merge. Merge again."


def _check_weights(
    directory: Path,
    file: str,
    manifest: Manifest,
    cache: DigestCache,
    progress: Progress | None,
) -> Iterator[str]:
    try:
        tensors = stored_tensors(directory, file)
        stat = (directory / file).stat()
        inode = (stat.st_dev, stat.st_ino)
        if inode not in cache.by_inode:
            cache.by_inode[inode] = _digests(tensors, progress)
    except MergeToolsError:
        return  # the header's check has said so
    digests = cache.by_inode[inode]
    damaged = [
        name
        for name, digest in digests.items()
        if name in manifest.tensors and manifest.tensors[name].xxh3_128 != digest
    ]
    for name in damaged:
        yield f"The tensor {name} in {file} has been damaged since the merge. Merge again."


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        prefix = file.read(8)
        return prefix + file.read(int.from_bytes(prefix, "little"))


def _digests(tensors: Mapping[str, StoredTensor], progress: Progress | None) -> Mapping[str, str]:
    """Digests of all tensors, in file order."""
    total = sum(tensor.num_bytes for tensor in tensors.values())
    done = 0
    digests: dict[str, str] = {}
    with held_signals(), Reader() as reader, ThreadPoolExecutor(NUM_WORKERS) as pool:
        results = pool.map(lambda tensor: _digest(reader, tensor), tensors.values())
        try:
            for (name, tensor), digest in zip(tensors.items(), results, strict=True):
                let_signals_through()
                digests[name] = digest
                done += tensor.num_bytes
                if progress is not None:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)  # nobody waits for gigabytes after an interrupt
    return digests


def _digest(reader: Reader, tensor: StoredTensor) -> str:
    pieces = pieces_of(tensor.shape)
    largest = max((piece.num_elements for piece in pieces), default=0)
    buffer = allocate(Reader.buffer_bytes(largest * tensor.dtype.num_bytes))
    return combined(
        xxhash.xxh3_128_digest(
            bytes_of(reader.read(tensor, piece.first_element, piece.num_elements, buffer))
        )
        for piece in pieces
    )
