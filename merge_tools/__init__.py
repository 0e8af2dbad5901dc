"""Turns a base checkpoint and its LoRA adapters into merged checkpoints, and verifies them.

    source = resolve_source("jinaai/jina-embeddings-v4", revision="main")
    plan = plan_merge(source)
    merge(plan, Path("out"))

Deliberately knows nothing of serving, pooling or the command line.
"""

from merge_tools.errors import (
    AdapterConfigError,
    CorruptShard,
    HubUnreachable,
    MergeInterrupted,
    MergeToolsError,
    MismatchError,
    NonFiniteError,
    NotACheckpoint,
    NotEnoughSpace,
    OutputError,
    OutputExists,
    OutputLocked,
    SourceError,
    SourceNotFound,
    TaskError,
    UnsupportedAdapter,
    UnsupportedBase,
    WriteFailed,
)
from merge_tools.forward import ForwardReport, ProbeResult, TaskForward, verify_forward
from merge_tools.merge import MergeReport, merge
from merge_tools.plan import MergePlan, plan_merge
from merge_tools.source import Source, resolve_source
from merge_tools.verify import CheckpointReport, VerifyReport, verify

__all__ = [
    "AdapterConfigError",
    "CheckpointReport",
    "CorruptShard",
    "ForwardReport",
    "HubUnreachable",
    "MergeInterrupted",
    "MergePlan",
    "MergeReport",
    "MergeToolsError",
    "MismatchError",
    "NonFiniteError",
    "NotACheckpoint",
    "NotEnoughSpace",
    "OutputError",
    "OutputExists",
    "OutputLocked",
    "ProbeResult",
    "Source",
    "SourceError",
    "SourceNotFound",
    "TaskError",
    "TaskForward",
    "UnsupportedAdapter",
    "UnsupportedBase",
    "VerifyReport",
    "WriteFailed",
    "merge",
    "plan_merge",
    "resolve_source",
    "verify",
    "verify_forward",
]
