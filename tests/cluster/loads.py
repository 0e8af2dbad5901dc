"""Clients that ask a cluster again and again, and remember every answer that is not the right one."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.http.live import MODEL

Body = Mapping[str, object]


@dataclass
class Report:
    """What clients saw."""

    num_right: int = 0
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _grown: threading.Condition = field(default_factory=threading.Condition)

    def note(self, wrong: str | None) -> None:
        with self._grown:
            if wrong is None:
                self.num_right += 1
            else:
                self.wrong.append(wrong)
            self._grown.notify_all()

    def until_more(self, count: int, timeout_s: float = 120) -> None:
        """Wait for `count` more answers, right or wrong."""
        with self._grown:
            goal = self.num_right + len(self.wrong) + count
            assert self._grown.wait_for(
                lambda: self.num_right + len(self.wrong) >= goal, timeout_s
            ), self


@contextmanager
def load(url: str, bodies: Sequence[Body], *, num_clients: int = 6) -> Iterator[Report]:
    """Ask until the block is left; the first answer to each body, given before it, is the right one."""
    report, stop = Report(), threading.Event()
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        right = [client.post("/v1/embeddings", json=_full(body)).json()["data"] for body in bodies]

    def ask(offset: int) -> None:
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            at = offset
            while not stop.is_set():
                at = (at + 1) % len(bodies)
                report.note(_wrong(client, _full(bodies[at]), right[at]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(num_clients)]
    for thread in threads:
        thread.start()
    try:
        yield report
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _full(body: Body) -> dict[str, object]:
    return {"model": MODEL, **body}


def _wrong(client: httpx.Client, body: dict[str, object], right: object) -> str | None:
    try:
        answer = client.post("/v1/embeddings", json=body)
    except httpx.HTTPError as error:
        return repr(error)
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:300]}"
    return None if answer.json()["data"] == right else "other vectors"
