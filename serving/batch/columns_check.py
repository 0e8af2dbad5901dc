"""Whether the columns that are read are there, as far as files say so before they are read.

Without this, a column that is spelled wrong would reject every row, hours later.
"""

from pathlib import Path

from serving.errors import InputError, SourceError
from serving.inputs import shortened
from serving.settings.batch import BatchSettings

_NAMED = ("id_column", "text_column", "image_column", "pdf_column")


class ColumnsCheck:
    """Collects the columns of all files."""

    def __init__(self, source: Path, settings: BatchSettings) -> None:
        self._source = source
        self._contents = {settings.text_column, settings.image_column, settings.pdf_column}
        self._read = self._contents | {settings.id_column or "id"}
        defaults = type(settings).model_fields
        self._named = [name for name in _NAMED if getattr(settings, name) != defaults[name].default]
        self._values = {name: str(getattr(settings, name)) for name in self._named}
        self._known: set[str] = set()
        self._some_are_unknown = False

    def add(self, columns: tuple[str, ...]) -> None:
        """Add a file with these columns.

        Raises:
            InputError: a column that is read is there twice.
        """
        for name in sorted(self._read):
            if columns.count(name) > 1:
                raise InputError(f"It has {columns.count(name)} columns called {name!r}.")
        self._known.update(columns)

    def add_unknown(self) -> None:
        """Add a file that does not say which columns it has."""
        self._some_are_unknown = True

    def finish(self) -> None:
        """Compare what is read with what is there.

        Raises:
            SourceError: no file has a column that was named, or any that holds contents.
        """
        if self._some_are_unknown:
            return
        there = shortened(", ".join(sorted(self._known))) or "none"
        for name in self._named:
            if self._values[name] not in self._known:
                option = name.replace("_", "-")
                raise SourceError(
                    f"{self._source} has no column {self._values[name]!r}, which --{option} names. "
                    f"Its columns: {there}."
                )
        if self._known and not self._contents & self._known:
            wanted = ", ".join(sorted(self._contents))
            raise SourceError(
                f"{self._source} has none of the columns {wanted}. Its columns: {there}. "
                "Say which one to read with --text-column, --image-column or --pdf-column."
            )
