"""The directory in which a merge comes to be, and its lock: all or nothing, also when killed.

    OUT/.polyvec.lock              held with flock by the merge that is running, names its pid
    OUT/.polyvec-staging/<task>/   being written; nothing reads it
    OUT/.polyvec-staging/commit.json   written once every task is complete and on disk
    OUT/<task>/                    appears by one rename, complete

A killed run leaves the first two behind. Without commit.json the next run removes them; with it the
next run finishes the renames. So each task appears whole, and after a kill between two renames the
next run in the same OUT makes the others appear before it does anything else.
Deliberately knows nothing of checkpoints but their manifest's name.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType

from merge_tools.errors import OutputError, OutputExists, OutputLocked
from merge_tools.jsonfile import read_json_object
from merge_tools.manifest import MANIFEST_FILE
from merge_tools.writer import failures_named, write_file

__all__ = ["LOCK_FILE", "STAGING_DIRECTORY", "Staging", "fingerprint_of"]

LOCK_FILE = ".polyvec.lock"
STAGING_DIRECTORY = ".polyvec-staging"
COMMIT_FILE = "commit.json"
REPLACED_SUFFIX = ".replaced"


class Staging(AbstractContextManager["Staging"]):
    """Holds the lock on OUT and the staging directory in it; leaving without commit removes both.

    `finished` tells which tasks an interrupted earlier run had completed and this one put in place,
    if that run's fingerprint was the same.

    Raises:
        OutputLocked: another process is merging into OUT.
        OutputError: OUT is a file.
        OutputExists: an interrupted run's work belongs where something else stands now.
        WriteFailed: OUT cannot be created or written to.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out = out
        self.root = out / STAGING_DIRECTORY
        self.finished: tuple[str, ...] = ()
        self._fingerprint = fingerprint
        self._lock_fd = -1
        self._created: list[Path] = []

    def __enter__(self) -> "Staging":
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file; give a directory for the output.")
        with ExitStack() as undo:
            undo.callback(self._release)
            with failures_named(self.out, 0):
                self._make_out()
                self._lock_fd = _lock(self.out)
                self.finished = self._finish_earlier_run()
                if self.root.exists():
                    shutil.rmtree(self.root)
                self.root.mkdir()
            undo.pop_all()
        return self

    def directory(self, task: str) -> Path:
        """Makes the directory in which a task comes to be."""
        path = self.root / task
        with failures_named(path, 0):
            path.mkdir()
        return path

    def can_link(self) -> bool:
        """Whether the file system knows hard links."""
        probe, linked = self.root / "probe", self.root / "probe.linked"
        write_file(probe, b"")
        try:
            os.link(probe, linked)
        except OSError:
            return False
        finally:
            probe.unlink()
            linked.unlink(missing_ok=True)
        return True

    def commit(self, tasks: Sequence[str]) -> None:
        """Makes complete directories appear in OUT; checkpoints of that name there are replaced.

        Raises:
            OutputExists: something else of that name has come to OUT.
            WriteFailed: the operating system refused a rename.
        """
        for task in tasks:
            _sync_directory(self.root / task)
        _sync_directory(self.root)
        record = {"fingerprint": self._fingerprint, "tasks": list(tasks)}
        # Renamed into place, so that a record that exists is a whole record.
        draft = self.root / "commit.draft"
        write_file(draft, json.dumps(record).encode())
        with failures_named(self.out, 0):
            draft.rename(self.root / COMMIT_FILE)
            _sync_directory(self.root)
        self._put_in_place(tasks)

    def _put_in_place(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            if (self.root / task).exists():
                self._refuse_foreign(self.out / task)
        with failures_named(self.out, 0, left=self._what_waits()):
            self._rename_all(tasks)

    def _refuse_foreign(self, final: Path) -> None:
        """What is no checkpoint came to OUT/<task> after the merge had looked; it is not touched."""
        is_real = final.is_dir() and not final.is_symlink()
        if is_real and (not any(final.iterdir()) or (final / MANIFEST_FILE).is_file()):
            return
        if final.exists() or final.is_symlink():
            raise OutputExists(
                f"{final} stands where a finished merge belongs and is not a merged checkpoint (it "
                f"has no {MANIFEST_FILE}, or is a file or a link). It is not ours to remove: move "
                f"it away and merge again. {self._what_waits()}"
            )

    def _what_waits(self) -> str:
        return (
            f"The finished work waits in {self.root}, and the next merge into {self.out} puts it "
            "in place first; remove that directory to give it up."
        )

    def _rename_all(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            staged, final = self.root / task, self.out / task
            if not staged.exists():
                continue  # an earlier run got that far
            replaced = self.root / f"{task}{REPLACED_SUFFIX}"
            if final.exists() and not replaced.exists():
                final.rename(replaced)
            staged.rename(final)
        _sync_directory(self.out)

    def _finish_earlier_run(self) -> tuple[str, ...]:
        path = self.root / COMMIT_FILE
        if not path.exists():
            return ()
        record = read_json_object(path, error=OutputError)
        tasks = record.texts("tasks")
        self._put_in_place(tasks)
        return tasks if record.text("fingerprint") == self._fingerprint else ()

    def _make_out(self) -> None:
        missing = [path for path in (self.out, *self.out.parents) if not path.exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        self._created = missing

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a failed rename the record stays, so that the next run can finish.
        if kind is None or not (self.root / COMMIT_FILE).exists():
            shutil.rmtree(self.root, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._lock_fd >= 0:
            with suppress(OSError):
                (self.out / LOCK_FILE).unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = -1
        for path in self._created:
            with suppress(OSError):
                path.rmdir()  # only what this run made, and only if nothing came into it


def _lock(out: Path) -> int:
    path = out / LOCK_FILE
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise OutputLocked(
                f"Another merge (process {holder}) is writing into {out}. Wait for it to finish, "
                "or choose another output directory."
            ) from None
        # The holder before us may have removed the name between our open and our lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
                return fd
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fingerprint_of(paths: Sequence[Path], options: Mapping[str, str]) -> str:
    """A text that differs when the files (by size and time) or the options differ."""
    states = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    return json.dumps([states, sorted(options.items())])
