"""The engine's process is killed under load, as the kernel does when memory runs out.

The server has to say so at once, come back by itself, and never answer with a wrong vector: every
answer with 200 is compared with what the same request got before.
"""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks.faults.scenario import Setting, Verdict, statuses
from benchmarks.load.client import Client
from benchmarks.load.connection import Answer
from benchmarks.load.cpu import engine_pids
from benchmarks.load.requests import KINDS, vectors

_KIND = "text-8"
_NUM_DIFFERENT = 16
_NUM_WORKERS = 8
_POLL_S = 0.05
_ALLOWED = {"200", "503"}


@dataclass(frozen=True, slots=True)
class _Seen:
    sent_s: float
    done_s: float
    answer: Answer
    difference: float | None


async def engine_killed(setting: Setting) -> Verdict:
    """Run it; see the module."""
    bounds = setting.bounds
    client = setting.client()
    try:
        requests = setting.requests(client, _KIND, _NUM_DIFFERENT)
        references = [await _vectors(setting, client, request) for request in requests]
        seen: list[_Seen] = []
        stop = asyncio.Event()
        workers = [
            asyncio.create_task(_work(setting, client, requests, references, seen, stop, number))
            for number in range(_NUM_WORKERS)
        ]
        await asyncio.sleep(bounds.seconds / 6)
        killed_s = time.monotonic()
        pids = _kill(setting.server.pid)
        unready_s = await _until(setting, ready=False, until_s=killed_s + 2 * bounds.notice_s)
        ready_s = await _until(setting, ready=True, until_s=killed_s + bounds.recover_s)
        await asyncio.sleep(bounds.seconds / 6)
        stop.set()
        await asyncio.gather(*workers)
    finally:
        client.close()
    return _judge(setting, seen, killed_s, unready_s, ready_s, len(pids))


def _judge(
    setting: Setting,
    seen: Sequence[_Seen],
    killed_s: float,
    unready_s: float | None,
    ready_s: float | None,
    num_killed: int,
) -> Verdict:
    bounds, verdict = setting.bounds, Verdict("engine killed")
    answers = statuses(item.answer for item in seen)
    after = [item for item in seen if item.done_s >= killed_s]
    in_flight = [item for item in after if item.sent_s < killed_s]
    differences = [item.difference for item in seen if item.difference is not None]
    first_503 = min((item.done_s for item in after if item.answer.status == 503), default=None)
    back = [item.done_s for item in after if item.answer.status == 200 and item.sent_s > killed_s]
    recovered = [at for at in back if first_503 is not None and at > first_503]
    slowest = max((item.done_s - killed_s for item in in_flight), default=0.0)
    worst = max(differences, default=1.0)
    wrong = sum(difference > bounds.difference for difference in differences)
    verdict.figures = {
        "answers": answers,
        "killed_processes": num_killed,
        "in_flight": len(in_flight),
        "in_flight_answers": statuses(item.answer for item in in_flight),
        "in_flight_slowest_s": slowest,
        "vectors_checked": len(differences),
        "largest_difference": worst,
    }
    times = {
        "not_ready_after_s": unready_s,
        "ready_after_s": ready_s,
        "first_503_after_s": first_503,
    }
    times["vectors_after_s"] = min(recovered, default=None)
    verdict.figures |= {name: at - killed_s for name, at in times.items() if at is not None}
    verdict.rule("there was an engine to kill", num_killed > 0, num_killed)
    verdict.rule("answers are 200 or 503", set(answers) <= _ALLOWED, answers)
    verdict.rule(
        f"requests on their way are answered within {bounds.notice_s:g} s",
        slowest <= bounds.notice_s,
        f"{slowest:.2f} s",
    )
    for text, at in (
        ("the first 503 comes", first_503),
        ("it says that it is not ready", unready_s),
    ):
        verdict.rule(
            f"{text} within {bounds.notice_s:g} s",
            at is not None and at - killed_s <= bounds.notice_s,
            None if at is None else f"{at - killed_s:.2f} s",
        )
    verdict.rule(
        f"it is ready again and answers with vectors within {bounds.recover_s:g} s",
        ready_s is not None and bool(recovered),
        None if not recovered else f"{min(recovered) - killed_s:.1f} s",
    )
    verdict.rule(f"no vector differs by more than {bounds.difference:g}", wrong == 0, wrong)
    return verdict


async def _work(
    setting: Setting,
    client: Client,
    requests: Sequence[bytes],
    references: Sequence[list[np.ndarray]],
    seen: list[_Seen],
    stop: asyncio.Event,
    number: int,
) -> None:
    while not stop.is_set():
        number = (number + 1) % len(requests)
        sent_s = time.monotonic()
        answer = await client.send(requests[number], keep_body=True)
        done_s = time.monotonic()
        difference = None
        if answer.status == 200 and answer.body is not None:
            found, _ = vectors(setting.dialect, KINDS[_KIND], answer.body)
            difference = _difference(found, references[number])
        else:
            # Not to measure how fast it refuses.
            await asyncio.sleep(0.1)
        seen.append(_Seen(sent_s, done_s, answer, difference))


def _kill(root_pid: int) -> list[int]:
    # The scheduler alone: its workers have to notice by themselves, or be ended by the server.
    pids = engine_pids(root_pid)
    parents = {pid: psutil.Process(pid).ppid() for pid in pids}
    heads = [pid for pid in pids if parents[pid] not in pids]
    for pid in heads:
        os.kill(pid, signal.SIGKILL)
    return heads


async def _until(setting: Setting, *, ready: bool, until_s: float) -> float | None:
    client = setting.client(timeout_s=2.0)
    try:
        while time.monotonic() < until_s and setting.server.exit_status is None:
            if await setting.ready(client) == ready:
                return time.monotonic()
            await asyncio.sleep(_POLL_S)
    finally:
        client.close()
    return None


async def _vectors(setting: Setting, client: Client, request: bytes) -> list[np.ndarray]:
    answer = await client.send(request, keep_body=True)
    if answer.status != 200 or answer.body is None:
        raise RuntimeError(f"A first request was answered with {answer.status}.")
    return vectors(setting.dialect, KINDS[_KIND], answer.body)[0]


def _difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    if len(found) != len(expected):
        return 2.0
    return max(_one_minus_cos(a, b) for a, b in zip(found, expected, strict=True))


def _one_minus_cos(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return 2.0
    norms = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return 2.0 if norms == 0 else 1 - float(ours.astype(np.float64) @ theirs) / norms
