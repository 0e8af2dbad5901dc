"""`polyvec embed`: a corpus into parquet files. Every option beside the places is a field of `BatchSettings`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from polyvec.settings_options import with_options
from serving.settings import BatchSettings, EngineSettings, load_batch_settings
from serving.settings.documents import DocumentSettings
from serving.settings.supervision import SupervisionSettings

if TYPE_CHECKING:
    from serving.batch.summary import Progress, Summary

_SIGTERM_STATUS = 128 + signal.SIGTERM
_SIGINT_STATUS = 128 + signal.SIGINT


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a job as Ctrl-C does."""


@with_options(
    BatchSettings,
    panels={
        BatchSettings: "Job",
        DocumentSettings: "Documents",
        SupervisionSettings: "Engine",
        EngineSettings: "Engine",
    },
)
def embed(
    source: Annotated[
        str,
        typer.Argument(
            help="JSONL, parquet, CSV, a directory of files (also images and PDFs), or a Hugging Face "
            "dataset on disk."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="What `polyvec merge` wrote: OUT or OUT/<task>.", show_default=False)
    ],
    output: Annotated[
        str,
        typer.Option(
            help="Directory of the parquet files: new, or of the same job, which then goes on.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Which task of MODEL, where it holds several.")
    ] = None,
    **options: Any,
) -> None:
    """Embed a corpus on a Ray cluster, or on this machine. Run again, it goes on where it was interrupted.

    Each option can also be set in the environment, as POLYVEC_<NAME>.
    """
    settings = load_batch_settings({name: v for name, v in options.items() if v is not None})
    from serving.cluster.batch import embed_corpus

    bar = _Bar()
    try:
        with bar, _termination():
            summary = embed_corpus(source, model, output, settings, task=task, on_progress=bar.show)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, _TerminatedError)
        print(
            f"polyvec: interrupted; {output} keeps what is finished. Run the same command again to go on.",
            file=sys.stderr,
        )
        raise typer.Exit(_SIGTERM_STATUS if terminated else _SIGINT_STATUS) from None
    print(format_summary(summary))


def format_summary(summary: "Summary") -> str:
    """What a job came to, as lines of text."""
    if not summary.new_rows:
        first = f"{summary.output} was finished already: {summary.rows:,} rows"
    else:
        speed = f"{summary.new_rows / summary.seconds:,.1f} rows/s"
        speed += f", {summary.new_tokens / summary.seconds:,.0f} tokens/s"
        first = f"{summary.new_rows:,} rows in {summary.seconds:,.1f} s ({speed})"
        if summary.resumed_rows:
            first += f", after {summary.resumed_rows:,} that were there"
    lines = [
        first,
        f"  {summary.embedded:,} embeddings in {summary.num_files:,} files in {summary.output}, "
        f"{summary.pages:,} of them pages; {summary.tokens:,} tokens",
    ]
    if summary.rejected:
        lines.append(f"  {summary.rejected:,} rejected, with reasons in {summary.rejects}")
    return "\n".join(lines)


class _Bar:
    """A progress bar on stderr, from the first news of a job."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def show(self, progress: "Progress") -> None:
        """Show how far the job is."""
        if self._bar is None:
            self._bar = tqdm(
                total=progress.num_rows,
                initial=progress.resumed_rows,
                unit="row",
                unit_scale=True,
                dynamic_ncols=True,
                file=sys.stderr,
            )
        elapsed_s = self._bar.format_dict["elapsed"]
        if elapsed_s and progress.tokens:
            self._bar.set_postfix_str(
                f"{progress.tokens / elapsed_s:,.0f} tokens/s, {progress.rejected:,} rejected",
                refresh=False,
            )
        self._bar.update(progress.rows - self._bar.n)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _termination() -> Iterator[None]:
    """SIGTERM as an exception of the main thread."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
