"""What every process of an engine runs first: out of reach of the terminal's signals, gone with its parent.

Run by its path, in place of the user's main module (see `serving.engine.environment`), so it imports
nothing of polyvec, and importing it as a module does nothing.
"""

import os
import signal
import threading
import time

_LEADER = "_POLYVEC_ENGINE_LEADER"
_POLL_S = 1.0


def _follow_parent() -> None:
    _lead_or_join()
    threading.Thread(
        target=_die_with, args=(os.getppid(),), name="polyvec-follow-parent", daemon=True
    ).start()


def _lead_or_join() -> None:
    """The first process opens a session, in which those that it spawns stay.

    Ctrl-C reaches every process of the terminal's group at once; the engine has to go on until its
    parent has answered what it accepted.
    """
    if _LEADER not in os.environ:
        os.setsid()
        os.environ[_LEADER] = str(os.getpid())


def _die_with(parent: int) -> None:
    # Polled: the kernel's own signal comes when the parent's thread ends, and that one starts the
    # engine and is gone. A parent that is closing the engine is faster than this.
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    if str(os.getpgrp()) == os.environ[_LEADER]:
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _keep_progress_bars_to_this_process() -> None:
    """Give tqdm, with which vLLM shows how it loads weights, a lock of threads.

    Its own is a semaphore of the system as well. An engine that is ended by a signal leaves that behind, and the user is
    told of a leak at the end of every command.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


if __name__ == "__mp_main__":
    _follow_parent()
    _keep_progress_bars_to_this_process()
