"""What vLLM's processes inherit: variables, and what they run in place of the user's main module.

Knows the process, not the engine.
"""

import multiprocessing.spawn
import multiprocessing.util
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

_CHILD = str(Path(__file__).with_name("child.py"))

_lock = threading.Lock()
_users: Counter[str] = Counter()
_on_spawn: dict[int, Callable[[int], None]] = {}
_original_preparation_data = multiprocessing.spawn.get_preparation_data
_original_spawn = multiprocessing.util.spawnv_passfds


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that the user has not set, and take them back afterwards.

    Several threads may: a variable goes with the last that needs it, and has the value of the first.
    """
    with _lock:
        added = [name for name in values if _users[name] or name not in os.environ]
        os.environ.update({name: values[name] for name in added if not _users[name]})
        _users.update(added)
    try:
        yield
    finally:
        with _lock:
            _users.subtract(added)
            for name in added:
                if not _users[name]:
                    os.environ.pop(name, None)


@contextmanager
def children_without_main(on_spawn: Callable[[int], None] | None = None) -> Iterator[None]:
    """Processes that this thread spawns meanwhile do not import the user's main module.

    Python's spawn runs the main script again in every child, which is why multiprocessing asks for
    `if __name__ == "__main__"`. The engine's processes need nothing of that script, so a script
    without the guard works too. They run `serving/engine/child.py` in its place.

    Args:
        on_spawn: told the id of every process that is spawned.
    """
    # Otherwise the first process that needs it spawns it, as one of its own.
    resource_tracker.ensure_running()
    me = threading.get_ident()
    with _lock:
        _on_spawn[me] = on_spawn or _ignore
        multiprocessing.spawn.get_preparation_data = _preparation_data
        multiprocessing.util.spawnv_passfds = _spawn
    try:
        yield
    finally:
        with _lock:
            del _on_spawn[me]
            if not _on_spawn:
                multiprocessing.spawn.get_preparation_data = _original_preparation_data
                multiprocessing.util.spawnv_passfds = _original_spawn


def _preparation_data(name: str) -> dict[str, Any]:
    data: dict[str, Any] = _original_preparation_data(name)
    if threading.get_ident() in _on_spawn:
        data.pop("init_main_from_name", None)
        data["init_main_from_path"] = _CHILD
    return data


def _spawn(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    pid = _original_spawn(path, args, passfds)
    _on_spawn.get(threading.get_ident(), _ignore)(pid)
    return pid


def _ignore(pid: int) -> None:
    del pid
