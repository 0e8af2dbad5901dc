"""Every error that merging and verifying can raise, as one tree.

MergeToolsError
├── SourceError                 the input cannot be used
│   ├── SourceNotFound          no such directory, no such hub repository
│   ├── HubUnreachable          the hub did not answer
│   ├── UnsupportedBase         an architecture, weight format or dtype that is not merged here
│   ├── CorruptShard            a weight file is truncated, malformed or fails its hash
│   ├── AdapterConfigError      adapter_config.json is missing, malformed or contradicts itself
│   ├── UnsupportedAdapter      an adapter feature that is not merged here, by name
│   ├── TaskError               a task that the source does not have, or a name no directory can have
│   ├── MismatchError           base and adapters do not fit; carries every problem
│   └── NonFiniteError          a NaN, an infinity, or a value the output dtype cannot hold
├── OutputError                 the output cannot be written
│   ├── OutputExists            a finished checkpoint or a foreign directory stands there
│   ├── OutputLocked            another merge writes into the same directory
│   ├── NotEnoughSpace          the plan needs more bytes than the file system has
│   └── WriteFailed             the operating system refused a write
├── NotACheckpoint              verify was pointed at something that is no merged checkpoint
└── MergeInterrupted            SIGTERM arrived; nothing was left behind

Messages state the rule, the name, what was got, what was expected and the next step.
This module deliberately knows nothing about how the errors come about.
"""

from collections.abc import Sequence

__all__ = [
    "AdapterConfigError",
    "CorruptShard",
    "HubUnreachable",
    "MergeInterrupted",
    "MergeToolsError",
    "MismatchError",
    "NonFiniteError",
    "NotACheckpoint",
    "NotEnoughSpace",
    "OutputError",
    "OutputExists",
    "OutputLocked",
    "SourceError",
    "SourceNotFound",
    "TaskError",
    "UnsupportedAdapter",
    "UnsupportedBase",
    "WriteFailed",
]

NUM_PROBLEMS_SHOWN = 20


class MergeToolsError(Exception):
    """Root of the tree: everything merge_tools raises on purpose."""


class SourceError(MergeToolsError):
    """The input cannot be used."""


class SourceNotFound(SourceError):  # noqa: N818 - the names read as facts, not as "...Error"
    """Neither a local directory nor a repository on the hub."""


class HubUnreachable(SourceError):  # noqa: N818
    """The hub did not answer, so a hub id could not be resolved."""


class UnsupportedBase(SourceError):  # noqa: N818
    """The base model is of a kind that is not merged here."""


class CorruptShard(SourceError):  # noqa: N818
    """A weight file is truncated, malformed or fails its hash."""


class AdapterConfigError(SourceError):
    """adapter_config.json is missing, malformed or contradicts itself."""


class UnsupportedAdapter(SourceError):  # noqa: N818
    """The adapter uses a feature that is not merged here."""


class TaskError(SourceError):
    """A task that the source does not have, or that no directory can be named after."""


class MismatchError(SourceError):
    """Base and adapters do not fit together; every problem is in `problems`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = [f"  - {problem}" for problem in self.problems[:NUM_PROBLEMS_SHOWN]]
        num_hidden = len(self.problems) - len(shown)
        if num_hidden:
            shown.append(f"  … and {num_hidden} more")
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"Base and adapters do not fit together ({len(self.problems)} {noun}); nothing was "
            "written. Use the base the adapters were trained on, complete and unmodified.\n"
            + "\n".join(shown)
        )


class NonFiniteError(SourceError):
    """A NaN, an infinity, or a value that the output dtype cannot hold."""


class OutputError(MergeToolsError):
    """The output cannot be written."""


class OutputExists(OutputError):  # noqa: N818
    """A finished checkpoint or a foreign directory stands where the output belongs."""


class OutputLocked(OutputError):  # noqa: N818
    """Another merge is writing into the same directory."""


class NotEnoughSpace(OutputError):  # noqa: N818
    """The plan needs more bytes than the file system has."""


class WriteFailed(OutputError):  # noqa: N818
    """The operating system refused to create, write or rename a file."""


class NotACheckpoint(MergeToolsError):  # noqa: N818
    """Verification was pointed at something that is not a merged checkpoint."""


class MergeInterrupted(MergeToolsError):  # noqa: N818
    """SIGTERM arrived during a merge; the staging directory has been removed."""
