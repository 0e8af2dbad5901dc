"""What can go wrong while serving, in one tree.

    PolyvecError
    ├── CheckpointError    the directory is not a merged checkpoint that can be served
    ├── InputError         one input cannot be embedded; names it and says why
    │   ├── ForeignInputError  so says the engine, in words that are not polyvec's
    │   └── NoVectorsError     the engine's result for it is of no use; not the input's fault
    ├── TaskError          the task, prompt, dimension or option asked for does not exist here
    ├── SettingsError      a setting, given or from the environment, is not valid
    ├── SourceError        a corpus cannot be read, or changed while it was
    ├── OutputError        what was computed cannot be written: the disk is full, or it is not ours
    ├── QueueFullError     too much is waiting already; try again later
    ├── StoppingError      whoever was asked is on its way out
    └── EngineError
        ├── EngineStartError   the engine did not come up
        ├── EngineStoppedError the engine was closed before or during the call
        └── EngineDeadError    the engine died with requests in flight

The first four are also ValueErrors, as in the model's own library. Errors of vLLM become these in
serving/engine; nothing above that folder sees a foreign exception.
"""


class PolyvecError(Exception):
    """Base of every error that polyvec raises on purpose."""


class CheckpointError(PolyvecError, ValueError):
    """A directory that cannot be served; the message says what it is and what to run instead."""


class InputError(PolyvecError, ValueError):
    """One input that cannot be embedded.

    Attributes:
        reason: what is wrong with the input, without its position.
        index: position of the input in the list it came in, or None for a single input.
    """

    def __init__(self, reason: str, *, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"Input {index}: {reason}")
        self.reason = reason
        self.index = index

    def at(self, index: int) -> "InputError":
        """The same error, naming the input's position in its list."""
        return type(self)(self.reason, index=index)


class NoVectorsError(InputError):
    """One input of which the engine's result is of no use; the others of its call have theirs."""


class ForeignInputError(InputError):
    """One input that the engine refused; `reason` is in its words, which may hold anything.

    Attributes:
        origin: class of the error that the engine raised.
    """

    def __init__(self, reason: str, *, origin: str, index: int | None = None) -> None:
        super().__init__(reason, index=index)
        self.origin = origin

    def at(self, index: int) -> "ForeignInputError":
        """The same error, naming the input's position in its list."""
        return ForeignInputError(self.reason, origin=self.origin, index=index)


class TaskError(PolyvecError, ValueError):
    """A task, prompt name, dimension or option that this checkpoint or call does not have."""


class SettingsError(PolyvecError, ValueError):
    """A setting, or a `POLYVEC_*` variable, that is unknown or has a bad value."""


class SourceError(PolyvecError, ValueError):
    """A corpus that cannot be read, or that changed while it was being embedded."""


class OutputError(PolyvecError):
    """An output that cannot be written to; no row is to blame, and what is finished stays."""


class QueueFullError(PolyvecError):
    """More would wait than may wait; nothing of the call was started.

    Attributes:
        retry_after_s: when the queue is expected to have room.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoppingError(PolyvecError):
    """Whoever was asked is on its way out; ask another, or again later."""

    def __init__(self) -> None:
        super().__init__("The server is stopping. Try again.")


class EngineError(PolyvecError):
    """The engine cannot answer; the input is not to blame."""


class EngineStartError(EngineError):
    """The engine did not come up."""


class EngineStoppedError(EngineError):
    """The engine was closed before it could answer."""


class EngineDeadError(EngineError):
    """The engine died; every request in flight fails with this."""
