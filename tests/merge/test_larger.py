"""Checkpoints of more than one block and piece: the streaming itself, and its memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_tools import merge, plan_merge, resolve_source, verify
from tests.merge.builders import TASKS, files_under, loaded, new_spelling
from tests.paths import GOLDEN_CHECKPOINT


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_element_of_a_larger_checkpoint_follows_the_formula(
    dtype: str, larger_source: Path, tmp_path: Path
) -> None:
    merge(plan_merge(resolve_source(larger_source), dtype=dtype), tmp_path / "out")
    base: dict[str, torch.Tensor] = {}
    for path in larger_source.glob("model-*.safetensors"):
        base |= load_file(path)
    adapter = load_file(larger_source / "adapters" / "adapter_model.safetensors")
    config = json.loads((larger_source / "adapters" / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    assert scale != 1
    seen = 0
    for task in TASKS:
        got = loaded(tmp_path / "out" / task)
        for name, weight in base.items():
            module = f"base_model.model.{new_spelling(name).removesuffix('.weight')}"
            expected = weight
            if f"{module}.lora_A.{task}.weight" in adapter and name.endswith(".weight"):
                a = adapter[f"{module}.lora_A.{task}.weight"].float()
                b = adapter[f"{module}.lora_B.{task}.weight"].float()
                expected = weight.float() + (b @ a) * scale
                seen += 1
            expected = expected.to(getattr(torch, dtype))
            assert torch.equal(got[new_spelling(name)], expected), name
    assert seen == 3 * (6 * 7 + 1)


def test_small_pieces_and_blocks_give_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_merge(resolve_source(GOLDEN_CHECKPOINT))
    merge(plan, tmp_path / "large")
    monkeypatch.setattr("merge_tools.digest.PIECE_ELEMENTS", 4096)
    monkeypatch.setattr("merge_tools.executor.BLOCK_ELEMENTS", 1024)
    monkeypatch.setattr("merge_tools.executor.OUTPUT_BYTES_PER_WORKER", 1)  # one task at a time
    merge(plan, tmp_path / "small")
    large, small = files_under(tmp_path / "large"), files_under(tmp_path / "small")
    assert large.keys() == small.keys()
    different = {Path(name).name for name in large if large[name] != small[name]}
    assert different == {"polyvec.json"}  # whose digests are defined by pieces
    assert verify(tmp_path / "small").passed


def test_memory_is_bounded_by_the_workers_not_by_the_model(
    larger_source: Path, tmp_path: Path
) -> None:
    code = f"""
from pathlib import Path
from merge_tools import merge, plan_merge, resolve_source

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

before = peak_bytes()
merge(plan_merge(resolve_source({str(larger_source)!r}), dtype="float32"), Path({str(tmp_path / "out")!r}))
print(before, peak_bytes())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    before, peak = map(int, result.stdout.split())
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.safetensors"))
    assert written > 150_000_000
    assert peak < 1_000_000_000
    assert peak - before < 120_000_000


def test_the_merge_needs_neither_transformers_nor_peft_nor_the_hub() -> None:
    code = (
        "import sys, merge_tools\n"
        f"merge_tools.plan_merge(merge_tools.resolve_source({str(GOLDEN_CHECKPOINT)!r}))\n"
        "print([m for m in ('transformers', 'peft', 'huggingface_hub') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
