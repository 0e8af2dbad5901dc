"""The directory of vLLM's sockets, which it would leave behind: one for the engines of a process.

vLLM finds it in an environment variable, which engines that start at once share.
"""

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

_lock = threading.Lock()
_shared: TemporaryDirectory[str] | None = None
_num_users = 0


class SocketDirectory:
    """One engine's share of the directory, which goes with the last."""

    def __init__(self) -> None:
        global _shared, _num_users
        with _lock:
            if _shared is None:
                _shared = TemporaryDirectory(prefix="polyvec-")
            _num_users += 1
            self.path = Path(_shared.name)
        self._released = False

    def release(self) -> None:
        """Give up the share; a second call does nothing."""
        global _shared, _num_users
        with _lock:
            if self._released:
                return
            self._released = True
            _num_users -= 1
            if _num_users == 0 and _shared is not None:
                _shared.cleanup()
                _shared = None
