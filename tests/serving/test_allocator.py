"""Memory that is freed and taken again, in processes of their own: the options hold for a whole process."""

import os
import subprocess
import sys
import textwrap

# 20 blocks of 16 MB, one after the other, every page of each written to.
SCRIPT = textwrap.dedent(
    """
    import resource, sys
    import numpy as np
    from serving.allocator import keep_memory
    kept = keep_memory() if sys.argv[1] == "keep" else False
    np.ones(16 << 20, dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(16 << 20, dtype=np.uint8)
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
)


def run(wanted: str, **variables: str) -> tuple[bool, int]:
    """What `keep_memory` said, and how many pages the blocks took from the kernel."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, wanted],
        env={**os.environ, "MALLOC_ARENA_MAX": "2", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, num_faults = done.stdout.split()
    return kept == "True", int(num_faults)


def test_memory_that_is_taken_again_comes_from_the_process() -> None:
    (_, plain), (kept, num_faults) = run("plain"), run("keep")
    assert kept
    assert num_faults < plain / 10


def test_what_the_user_has_set_stays() -> None:
    assert run("keep", MALLOC_TOP_PAD_="131072")[0] is False
