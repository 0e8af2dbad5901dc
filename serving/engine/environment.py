"""What vLLM's processes inherit: variables, and a main module they do not run again.

Knows the process, not the engine.
"""

import multiprocessing.spawn
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_threads_without_main: set[int] = set()
_original_preparation_data = multiprocessing.spawn.get_preparation_data


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that the user has not set, and take them back afterwards."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def children_without_main() -> Iterator[None]:
    """Processes that this thread spawns meanwhile do not import the user's main module.

    Python's spawn runs the main script again in every child, which is why multiprocessing asks for
    `if __name__ == "__main__"`. The engine's processes need nothing of that script, so a script
    without the guard works too.
    """
    me = threading.get_ident()
    with _lock:
        _threads_without_main.add(me)
        multiprocessing.spawn.get_preparation_data = _preparation_data
    try:
        yield
    finally:
        with _lock:
            _threads_without_main.discard(me)
            if not _threads_without_main:
                multiprocessing.spawn.get_preparation_data = _original_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    data: dict[str, Any] = _original_preparation_data(name)
    if threading.get_ident() in _threads_without_main:
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data
