"""What can go wrong while quality is measured, in one tree.

PolyvecError
└── QualityError
    ├── MissingExtraError   mteb, or what it brings, is not installed
    ├── TaskNameError       a task that does not exist, or that these vectors cannot be measured by
    ├── DatasetError        a dataset directory that is not one, or is damaged
    ├── FetchError          a dataset that has to be fetched, and could not be
    ├── ServerError         a server that does not answer, or refuses
    └── SpecError           what is to be compared is not written as it has to be
"""

from serving import PolyvecError


class QualityError(PolyvecError):
    """Base of what this package raises on purpose."""


class MissingExtraError(QualityError, ImportError):
    """An optional dependency that is not installed."""


class TaskNameError(QualityError, ValueError):
    """A task that does not exist, or that the chosen vectors or adapters do not fit."""


class DatasetError(QualityError, ValueError):
    """A dataset directory or file that cannot be read as what it is given for."""


class FetchError(QualityError):
    """A dataset that could not be fetched; the message names it."""


class ServerError(QualityError):
    """A server that cannot be reached, does not answer, or refuses the request."""


class SpecError(QualityError, ValueError):
    """A specification of `polyvec compare` that is not valid."""
