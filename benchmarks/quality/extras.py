"""Whether the optional dependencies are there, said in one line before anything is computed."""

import importlib.util

from benchmarks.quality.errors import MissingExtraError


def require(*modules: str, for_what: str) -> None:
    """Refuse where a module is missing; imports none of them.

    Raises:
        MissingExtraError: one is not installed; says what to install.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{for_what} needs {' and '.join(missing)}, which polyvec does not install by itself. "
            "Install the extra: pip install 'polyvec[quality]'."
        )
