"""The contestants of benchmarks.merge, each run in a process of its own.

    python -m benchmarks.merge_contestants ours|cp|floor|peft SOURCE OUT

ours   plans and merges three tasks through the public functions
cp     copies the base's weights three times with cp and waits with sync: the bytes of three outputs
floor  reads the base once and writes what the merge writes, where it writes it, without computing
peft   loads the base with transformers, the first task with PEFT, merges and saves it

The last line printed is one JSON object. Deliberately prepares nothing of the machine.
"""

import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TASKS = ("retrieval", "text-matching", "code")
BLOCK_BYTES = 16 << 20
PAGE_BYTES = 4096
NUM_WORKERS = 4
# Of jina-embeddings-v4's 7,509,770,496 bytes, what the adapters touch: 252 linears.
TOUCHED_FRACTION = 0.739


def ours(source: Path, out: Path) -> int:
    """The merge itself."""
    from merge_tools import merge, plan_merge, resolve_source

    return merge(plan_merge(resolve_source(source)), out).bytes_written


def cp(source: Path, out: Path) -> int:
    """What anybody would copy three checkpoints with."""
    num_bytes = 0
    for task in TASKS:
        (out / task).mkdir(parents=True)
        files = sorted(source.glob("model*.safetensors"))
        subprocess.run(["cp", *map(str, files), str(out / task)], check=True)
        num_bytes += sum(file.stat().st_size for file in files)
    subprocess.run(["sync"], check=True)
    return num_bytes


def floor(source: Path, out: Path) -> int:
    """The base read once in blocks; touched blocks written three times, the others once."""
    files = sorted(source.glob("model*.safetensors"))
    # Whole blocks only: at full size that leaves out 0.3 % of the bytes.
    smallest = min(file.stat().st_size for file in files)
    block_bytes = min(BLOCK_BYTES, smallest // 8 // PAGE_BYTES * PAGE_BYTES)
    blocks = [
        (file, number * block_bytes)
        for file in files
        for number in range(file.stat().st_size // block_bytes)
    ]
    num_touched = round(len(blocks) * TOUCHED_FRACTION)
    targets = [_reserve(out / task / "own", num_touched * block_bytes) for task in TASKS]
    shared = _reserve(out / TASKS[0] / "shared", (len(blocks) - num_touched) * block_bytes)
    sources = {file: os.open(file, os.O_RDONLY) for file in files}
    direct = {file: os.open(file, os.O_RDONLY | os.O_DIRECT) for file in files}

    def work(worker: int) -> int:
        memory = memoryview(mmap.mmap(-1, block_bytes))
        written = 0
        for number in range(worker, len(blocks), NUM_WORKERS):
            file, offset = blocks[number]
            try:
                got = os.preadv(sources[file], [memory], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                got = 0
            if got < block_bytes:
                os.preadv(direct[file], [memory], offset)
            is_touched = number < num_touched
            place = (number if is_touched else number - num_touched) * block_bytes
            for target in targets if is_touched else [shared]:
                written += os.pwrite(target, memory, place)
        return written

    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        num_bytes = sum(pool.map(work, range(NUM_WORKERS)))
    for target in (*targets, shared):
        os.fsync(target)
    for task in TASKS[1:]:
        os.link(out / TASKS[0] / "shared", out / task / "shared")
    return num_bytes


def _reserve(path: Path, num_bytes: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o666)
    os.posix_fallocate(fd, 0, num_bytes)
    return fd


def peft(source: Path, out: Path) -> int:
    """One task, as PEFT's documentation shows it, in the base's own dtype."""
    import torch
    from peft import PeftModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    prepared = out / "prepared"
    _prepare_peft(source, prepared)
    os.sync()
    global started_s
    started_s = time.perf_counter()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        source, config=Qwen2_5_VLConfig.from_pretrained(prepared), dtype=torch.bfloat16
    )
    merged = PeftModel.from_pretrained(model, str(prepared)).merge_and_unload()
    merged.save_pretrained(out / "merged")
    subprocess.run(["sync"], check=True)
    return sum(path.stat().st_size for path in (out / "merged").glob("*.safetensors"))


def _prepare_peft(source: Path, prepared: Path) -> None:
    """A config that stock transformers reads, and the first task as an ordinary adapter."""
    from safetensors.torch import load_file, save_file

    prepared.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name != "auto_map"}
    config |= {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    (prepared / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(source / "adapters" / "adapter_config.json", prepared)
    state = load_file(source / "adapters" / "adapter_model.safetensors")
    task = f".{TASKS[0]}."
    own = {name.replace(task, "."): tensor for name, tensor in state.items() if task in name}
    kept = {name: tensor for name, tensor in own.items() if "projector" not in name}
    save_file(kept, prepared / "adapter_model.safetensors")


CONTESTANTS: dict[str, Callable[[Path, Path], int]] = {
    "ours": ours,
    "cp": cp,
    "floor": floor,
    "peft": peft,
}
started_s = 0.0


def main() -> None:
    """Runs one contestant and prints what it took."""
    global started_s
    name, source, out = sys.argv[1:]
    if name == "ours":
        import merge_tools  # noqa: F401 - imports are no part of the work
    started_s = time.perf_counter()
    bytes_written = CONTESTANTS[name](Path(source), Path(out))
    seconds = time.perf_counter() - started_s
    print(
        json.dumps(
            {
                "seconds": seconds,
                "process_s": time.clock_gettime(time.CLOCK_BOOTTIME) - _process_start_s(),
                "bytes_written": bytes_written,
                "peak_bytes": _peak_bytes(),
            }
        )
    )


def _peak_bytes() -> int:
    """Peak resident memory of this process; getrusage's would be inherited from the parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def _process_start_s() -> float:
    """When this process was started, in seconds since boot."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
