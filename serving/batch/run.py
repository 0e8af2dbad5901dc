"""A run in its directory: begun or continued, by one process at a time.

Knows what is done and what is left; not who does it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import ValidationError

from serving.batch.identity import Identity
from serving.batch.isolation import Attempts
from serving.batch.output import PART_GLOB, Output, write_whole
from serving.batch.part import read_tally
from serving.batch.tally import Tally
from serving.errors import OutputError, SettingsError

_DIFFERENCES_SHOWN = 10


@dataclass(slots=True)
class Run:
    """What is done; grows while the job runs.

    Attributes:
        output: the directory.
        identity: what the run is.
        done: one byte for each chunk: whether its file is there.
        before: what earlier runs made.
        tally: what all runs made.
    """

    output: Output
    identity: Identity
    done: bytearray
    before: Tally = field(default_factory=Tally)
    tally: Tally = field(default_factory=Tally)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return all(self.done)

    def note(self, index: int, tally: Tally) -> bool:
        """Chunk `index` is done; False if that was known, as when a lost answer was given again."""
        if self.done[index]:
            return False
        self.done[index] = 1
        self.tally.add(tally)
        return True


@contextmanager
def open_run(output: Output, identity: Identity) -> Iterator[Run]:
    """Begin a run in `output` or continue it; nobody else does until the block is left.

    Raises:
        SettingsError: the output was begun by a run with another identity; names the differences.
        OutputError: it holds something else, is in use, or cannot be written to.
    """
    _refuse_foreign(output)
    with output.errors():
        output.state.mkdir(parents=True, exist_ok=True)
        output.rejects.mkdir(exist_ok=True)
        lock = os.open(output.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(lock, output)
        _identify(output, identity)
        with output.errors():
            clear_unfinished(output)
            run = Run(output, identity, bytearray(identity.num_chunks))
            _find_done(run)
        yield run
    finally:
        os.close(lock)  # which lets go of it


def clear_unfinished(output: Output) -> None:
    """Remove what was begun and not ended.

    Also at the end of a run: a process of an interrupted one may write on for a moment after the next has begun.

    Raises:
        OSError: as of the file system.
    """
    for path in output.leftovers():
        path.unlink(missing_ok=True)
    Attempts(output.attempts).clear()


def _refuse_foreign(output: Output) -> None:
    with output.errors():
        if not output.root.exists() or output.run_file.exists():
            return
        names = sorted(path.name for path in output.root.iterdir() if path != output.state)
    if names:
        raise OutputError(
            f"{output.root} holds {names[0]!r} and more, and no run of polyvec embed. "
            "Pass a directory that is new or empty."
        )


def _take(lock: int, output: Output) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{output.root} is being written to by another run. Wait for it, or pass another directory."
        ) from error
    except OSError as error:
        raise output.error(error) from error


def _identify(output: Output, identity: Identity) -> None:
    try:
        text = output.run_file.read_bytes()
    except FileNotFoundError:
        with output.errors():
            write_whole(output.run_file, identity.model_dump_json(indent=2).encode())
        return
    except OSError as error:
        raise output.error(error) from error
    try:
        old = Identity.model_validate_json(text)
    except ValidationError as error:
        raise OutputError(
            f"{output.run_file} is not of a run that this release can continue. Pass another directory."
        ) from error
    if differences := old.differences(identity):
        more = len(differences) - _DIFFERENCES_SHOWN
        shown = "; ".join(differences[:_DIFFERENCES_SHOWN]) + (
            f"; and {more} more" if more > 0 else ""
        )
        raise SettingsError(
            f"{output.root} was begun otherwise: {shown}. "
            "Run it as it was begun, or pass another directory."
        )


def _find_done(run: Run) -> None:
    for path in run.output.root.glob(PART_GLOB):
        number = path.name.removeprefix("part-").removesuffix(".parquet")
        if not number.isdecimal() or not int(number) < len(run.done):
            raise OutputError(
                f"{path} is no file of this run. Remove it, or pass another directory."
            )
        tally = read_tally(path)
        run.note(int(number), tally)
        run.before.add(tally)
