"""Where a checkpoint comes from: a local directory or a repository on the hub, pinned.

A hub id is resolved to one commit, which pins the base and its adapters together; loading the
model by name elsewhere does not do that. Deliberately knows nothing of what the directory holds.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import HubUnreachable, SourceError, SourceNotFound
from merge_tools.hashes import recorded_commit

__all__ = ["Source", "resolve_source"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "adapters/*", "LICENSE*"]
_UNWANTED = ["*.bin", "*.pt", "*.onnx", "*.gguf", "onnx/*", "results/*"]


@dataclass(frozen=True, slots=True)
class Source:
    """A directory to read from; `name` and `revision` go into manifests, `root` does not."""

    root: Path
    name: str
    revision: str | None

    @property
    def short_name(self) -> str:
        """The name without an owner."""
        return self.name.rpartition("/")[2]


def resolve_source(source: str | Path, *, revision: str | None = None) -> Source:
    """Finds a checkpoint on this machine or fetches it from the hub.

    Args:
        source: a directory, or a hub id such as "jinaai/jina-embeddings-v4".
        revision: a branch, tag or commit of a hub id; None is the default branch. Either way the
            commit it stood for is recorded.

    Raises:
        SourceNotFound: neither a directory nor a repository or revision on the hub.
        HubUnreachable: it looks like a hub id, and the hub does not answer.
        SourceError: a revision was given for a directory.
    """
    path = Path(source).expanduser()
    if path.exists():
        return _local(path, revision)
    if isinstance(source, str) and _HUB_ID.fullmatch(source) and ".." not in source:
        return _from_hub(source, revision)
    raise SourceNotFound(
        f"{source} does not exist, and it cannot be a hub id (owner/name). "
        "Check the path for a typing error."
    )


def _local(path: Path, revision: str | None) -> Source:
    if not path.is_dir():
        raise SourceNotFound(f"{path} is a file; give the directory that holds the checkpoint.")
    if revision is not None:
        raise SourceError(
            f"A revision belongs to a hub id; {path} is a directory, which has only one state. "
            "Leave the revision out."
        )
    root = path.resolve()
    # The hub's cache lays a repository out as models--owner--name/snapshots/<commit>.
    repository = root.parent.parent.name
    if root.parent.name == "snapshots" and repository.startswith("models--"):
        name = repository.removeprefix("models--").replace("--", "/")
        return Source(root, name, root.name if _COMMIT.fullmatch(root.name) else None)
    return Source(root, root.name, recorded_commit(root))


def _from_hub(hub_id: str, revision: str | None) -> Source:
    # Imported here: a local merge needs none of it, and it costs time and memory.
    import huggingface_hub
    from huggingface_hub import errors

    at = f"{hub_id} at revision {revision}" if revision else hub_id
    try:
        path = huggingface_hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED
        )
    except errors.GatedRepoError as cause:
        raise SourceNotFound(
            f"{at} asks for its licence to be accepted: do that on its page, log in, try again."
        ) from cause
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as cause:
        raise SourceNotFound(
            f"{at} is neither a directory here nor a repository on the hub. Check the name."
        ) from cause
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as cause:
        raise HubUnreachable(
            f"{hub_id} is no directory here, and as a hub id it could not be fetched "
            f"({type(cause).__name__}). Check the path, or the network, or download it first and "
            "give the directory."
        ) from cause
    root = Path(path)
    return Source(root, hub_id, root.name if _COMMIT.fullmatch(root.name) else None)
