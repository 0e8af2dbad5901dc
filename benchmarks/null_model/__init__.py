"""A plugin that lets vLLM run a checkpoint without layers, and how it gets into a benchmark's processes."""

import os
from pathlib import Path


def use_null_model() -> None:
    """Processes that this one starts from now on load the plugin, vLLM's own included."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
