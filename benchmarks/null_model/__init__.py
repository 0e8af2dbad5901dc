"""A plugin that lets vLLM run a checkpoint without layers, and how it gets into a benchmark's processes."""

import os
import sys
from pathlib import Path


def use_null_model() -> None:
    """This process and those that it starts from now on load the plugin, vLLM's own included."""
    here = str(Path(__file__).parent)
    # Where a process is spawned, it gets this one's path in place of the variable's.
    sys.path.append(here)
    folders = [here, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
