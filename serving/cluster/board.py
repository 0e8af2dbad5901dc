"""What one process knows of the replicas of a task: which there are, and how many tokens each holds.

Written by whoever calls replicas and by Ray Serve's router, which may run in a thread of its own; so
everything is under one lock. Knows names and numbers; no Ray.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

# A replica that said it cannot answer is passed over for this long, unless there is no other.
_DOWN_S = 1.0
# What a replica said of others' tokens is believed for this long.
_FOREIGN_S = 2.0


@dataclass(slots=True)
class _Replica:
    calls: dict[str, int] = field(default_factory=dict)
    foreign_tokens: int = 0
    foreign_until: float = 0.0
    down_until: float = 0.0

    def tokens(self, now: float) -> int:
        own = sum(self.calls.values())
        return own + (self.foreign_tokens if now < self.foreign_until else 0)


class Board:
    """The replicas of one task, as one process sees them.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._replicas: dict[str, _Replica] = {}
        self._places: dict[str, str] = {}
        self._empty_since: float | None = clock()

    @property
    def num_replicas(self) -> int:
        """Replicas that Ray Serve routes to."""
        return len(self._replicas)

    @property
    def num_up(self) -> int:
        """Replicas that did not say lately that they cannot answer."""
        now = self._clock()
        with self._lock:
            return sum(replica.down_until <= now for replica in self._replicas.values())

    def empty_s(self) -> float:
        """Seconds for which there has been no replica; 0 while there is one."""
        since = self._empty_since
        return 0.0 if since is None else self._clock() - since

    def update(self, names: Collection[str]) -> None:
        """These are the replicas now."""
        with self._lock:
            self._replicas = {name: self._replicas.get(name) or _Replica() for name in names}
            self._places = {
                call: name for call, name in self._places.items() if name in self._replicas
            }
            if names:
                self._empty_since = None
            elif self._empty_since is None:
                self._empty_since = self._clock()

    def ranked(self, names: Iterable[str]) -> list[str]:
        """`names`, best first: those that are up, then by the tokens that they hold."""
        now = self._clock()
        with self._lock:

            def load(name: str) -> tuple[bool, int, int]:
                replica = self._replicas.get(name)
                if replica is None:
                    return (False, 0, 0)
                return (replica.down_until > now, replica.tokens(now), len(replica.calls))

            return sorted(names, key=load)

    def charge(self, name: str, call: str, num_tokens: int) -> None:
        """`call` goes to replica `name`; to another than before, when it is routed again."""
        with self._lock:
            self._forget(call)
            replica = self._replicas.get(name)
            if replica is not None:
                replica.calls[call] = num_tokens
                self._places[call] = name

    def release(self, call: str) -> None:
        """`call` has ended, or never began."""
        with self._lock:
            self._forget(call)

    def heard(self, name: str, held_tokens: int) -> None:
        """Replica `name` says that it holds `held_tokens`, of this process and of others."""
        now = self._clock()
        with self._lock:
            replica = self._replicas.get(name)
            if replica is not None:
                replica.foreign_tokens = max(0, held_tokens - sum(replica.calls.values()))
                replica.foreign_until = now + _FOREIGN_S
                replica.down_until = 0.0

    def down(self, name: str) -> None:
        """Replica `name` says that it cannot answer now."""
        with self._lock:
            replica = self._replicas.get(name)
            if replica is not None:
                replica.down_until = self._clock() + _DOWN_S

    def _forget(self, call: str) -> None:
        name = self._places.pop(call, None)
        if name is not None:
            self._replicas[name].calls.pop(call, None)


_boards: dict[tuple[str, str], Board] = {}
_boards_lock = threading.Lock()


def board_of(application: str, deployment: str) -> Board:
    """The one board of this process for a deployment."""
    with _boards_lock:
        return _boards.setdefault((application, deployment), Board())
