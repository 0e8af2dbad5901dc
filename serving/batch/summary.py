"""How far a job is, and what it came to. Knows no terminal."""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from serving.batch.output import write_whole
from serving.batch.run import Run


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        num_rows: of the source.
        rows: done, by this run and earlier ones.
        resumed_rows: done by earlier ones.
        rejected: lines among the rejected.
        tokens: embedded by this run.
    """

    num_rows: int
    rows: int
    resumed_rows: int
    rejected: int
    tokens: int

    @classmethod
    def of(cls, run: Run) -> "Progress":
        """How far `run` is."""
        return cls(
            num_rows=run.identity.num_rows,
            rows=run.tally.rows,
            resumed_rows=run.before.rows,
            rejected=run.tally.rejected,
            tokens=run.tally.tokens - run.before.tokens,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished job came to.

    Attributes:
        output: the directory.
        rejects: directory of the rejected rows.
        num_files: of the output.
        rows: of the source.
        embedded: rows of the output.
        pages: those of them that are pages of PDFs.
        rejected: lines among the rejected.
        tokens: of everything embedded.
        resumed_rows: rows that earlier runs had done.
        seconds: of this run, from the first engine's start.
        new_rows: rows that this run did.
        new_tokens: tokens that this run embedded.
    """

    output: Path
    rejects: Path
    num_files: int
    rows: int
    embedded: int
    pages: int
    rejected: int
    tokens: int
    resumed_rows: int
    seconds: float
    new_rows: int
    new_tokens: int

    @classmethod
    def of(cls, run: Run, seconds: float) -> "Summary":
        """What `run` came to, in `seconds`."""
        return cls(
            output=run.output.root,
            rejects=run.output.rejects,
            num_files=len(run.done),
            rows=run.tally.rows,
            embedded=run.tally.embedded,
            pages=run.tally.pages,
            rejected=run.tally.rejected,
            tokens=run.tally.tokens,
            resumed_rows=run.before.rows,
            seconds=seconds,
            new_rows=run.tally.rows - run.before.rows,
            new_tokens=run.tally.tokens - run.before.tokens,
        )

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: as of the file system.
        """
        data = orjson.dumps(
            asdict(self), default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        write_whole(path, data)
