"""What a job is: a checked plan, ready to be run. Knows no Ray and starts nothing.

Everything that can fail at once fails here, before an engine starts.
"""

from dataclasses import dataclass
from pathlib import Path

from serving.batch.identity import Identity, prompt_name
from serving.batch.output import Output
from serving.batch.source import Plan, plan_source
from serving.engine.protocol import Want
from serving.errors import OutputError, SettingsError, TaskError
from serving.manifest import Manifest, find_tasks, read_manifest
from serving.pipeline import Request
from serving.settings.batch import BatchSettings


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine's process is told; picklable.

    Attributes:
        model: directory of the merged task.
        output: where files go.
        settings: of the job.
        identity: what the run is.
    """

    model: Path
    output: Output
    settings: BatchSettings
    identity: Identity

    def request(self, manifest: Manifest) -> Request:
        """What is asked of the pipeline for every row."""
        multi = self.settings.vectors == "multi"
        return Request(
            want=Want(single=not multi, multi=multi, dim=self.settings.dim),
            prompt_name=prompt_name(manifest, self.settings),
            max_length=self.settings.max_text_tokens,
            too_long="cut" if self.settings.too_long == "cut" else "refuse",
        )


def plan_job(
    source: str | Path,
    model: str | Path,
    task: str | None,
    output: str | Path,
    settings: BatchSettings,
) -> tuple[Job, Plan]:
    """Check what can be checked at once, and look at the source.

    Args:
        source: the corpus.
        model: one merged task, or the directory of several.
        task: which of several; None where there is one.
        output: directory, which may hold an interrupted run of the same job.
        settings: everything else.

    Raises:
        CheckpointError: there is no merged checkpoint at `model`.
        TaskError: the task, prompt or dimension does not exist there.
        SettingsError: settings contradict each other.
        SourceError: the source cannot be read.
        OutputError: `output` is no place to write to.
    """
    directory = _checkpoint(model, task)
    manifest = read_manifest(directory)
    _check(manifest, settings)
    root = _directory(output)
    if Path(source).is_dir() and root.resolve().is_relative_to(Path(source).resolve()):
        raise OutputError(
            f"The output {root} lies in the source {source}, and would become a part of it. "
            "Pass a directory beside the source."
        )
    plan = plan_source(Path(source), settings)
    identity = Identity.of(
        manifest,
        settings,
        source=plan.fingerprint,
        num_rows=plan.num_rows,
        num_chunks=plan.num_chunks,
    )
    return Job(directory.resolve(), Output(root), settings, identity), plan


def _checkpoint(model: str | Path, task: str | None) -> Path:
    found = find_tasks(model, None if task is None else [task])
    if len(found) > 1:
        raise TaskError(
            f"{model} holds the tasks {sorted(found)}, and a job has one. Pass one of them as --task."
        )
    return next(iter(found.values()))


def _check(manifest: Manifest, settings: BatchSettings) -> None:
    if settings.prompt is not None and settings.prompt not in manifest.prompts:
        raise TaskError(
            f"Invalid prompt: {settings.prompt}. Must be one of {list(manifest.prompts)}."
        )
    if settings.vectors == "multi":
        if manifest.multi_vector_dim is None:
            raise TaskError(
                "This checkpoint has no multi-vectors. Leave vectors at single, or merge one that has."
            )
        if settings.dim is not None:
            raise SettingsError(
                f"dim is {settings.dim} and vectors is multi: multi-vectors have one dimension, "
                f"{manifest.multi_vector_dim}. Leave dim out."
            )
    elif settings.dim is not None and settings.dim not in manifest.matryoshka_dims:
        raise TaskError(
            f"Invalid dim: {settings.dim}. Must be one of {list(manifest.matryoshka_dims)}."
        )
    taken = settings.max_model_tokens or manifest.max_text_tokens
    if taken > manifest.max_text_tokens or (settings.max_text_tokens or 1) > taken:
        raise SettingsError(
            f"max_text_tokens is {settings.max_text_tokens} and max_model_tokens {taken}, and the model takes "
            f"{manifest.max_text_tokens}. The first must be at most the second, and both at most the third."
        )


def _directory(output: str | Path) -> Path:
    # A Path has already lost one of the slashes.
    if "://" in str(output) or str(output).startswith(("http:", "https:", "s3:", "gs:", "hf:")):
        raise OutputError(
            f"{output} is a URL. The output is a directory that every engine's machine sees; mount it."
        )
    root = Path(output).absolute()
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root} is a file. Pass a directory for the output.")
    return root
