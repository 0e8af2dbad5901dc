"""How many files and connections the process may have open: as many as the system lets it."""

import logging
import resource

_log = logging.getLogger(__name__)

# Engines, checkpoints, log, listener, fetches and Redis.
OTHER_FILES = 256


def raise_open_files(max_connections: int) -> None:
    """Raise the soft limit to the hard one, and warn where that is too few for `max_connections`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and max_connections + OTHER_FILES > hard:
        _log.warning(
            "The system allows %d open files, too few for max_connections=%d. "
            "Raise its limit (ulimit -Hn), or lower max_connections to %d.",
            hard,
            max_connections,
            max(1, hard - OTHER_FILES),
        )
