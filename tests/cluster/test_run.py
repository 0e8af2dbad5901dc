"""What `polyvec serve --cluster` refuses before anything is started on Ray."""

import subprocess
import sys
from pathlib import Path


def test_replicas_that_would_wait_for_gpus_for_ever_are_refused(merged_float32: Path) -> None:
    # More than a machine has, whatever machine it is: 99 for each of three tasks.
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "polyvec", "serve", str(merged_float32), "--cluster"),
            *("--port", "0", "--allow-no-keys", "--cpus-per-replica", "0.01"),
            *("--gpus-per-replica", "1", "--min-replicas", "99"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 1
    assert "The replicas want 297 GPUs, and Ray has " in answer.stderr
    assert "Ask for less with gpus_per_replica or min_replicas" in answer.stderr
