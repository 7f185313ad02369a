"""Locks that a forked child finds open, and threads that end with their work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from baco_integrations.core import threads
from baco_integrations.core.threads import Pool, fork_safe
from tests.scripted import eventually


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_a_lock_is_open_in_a_forked_child(kind: Callable[[], threading.Lock]) -> None:
    lock, held, let = fork_safe(kind()), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            let.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    if (child := os.fork()) == 0:
        signal.alarm(10)
        with lock:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not lock.acquire(blocking=False)  # the parent's is as it was
    let.set()
    holder.join()


@pytest.fixture
def let() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_pool_starts_no_more_threads_than_there_is_work_for(let: threading.Event) -> None:
    pool, used = Pool(3, "some"), set()
    for _ in range(5):  # one after another
        done = threading.Event()
        pool.submit(lambda done=done: (used.add(threading.current_thread()), done.set()))
        assert done.wait(10)
        assert eventually(lambda: pool.idle == 1)
    assert len(used) == 1
    order: list[int] = []
    for number in range(6):
        pool.submit(lambda number=number: (order.append(number), let.wait(20)))
    assert eventually(lambda: len(order) == 3)
    let.set()
    assert eventually(lambda: len(order) == 6)
    assert (sorted(order[:3]), sorted(order[3:])) == ([0, 1, 2], [3, 4, 5])


def test_a_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_S", 0.01)
    pool, done = Pool(2, "some"), threading.Event()
    pool.submit(done.set)
    assert done.wait(10) and eventually(lambda: pool.threads == 0)
    done.clear()
    pool.submit(done.set)
    assert done.wait(10)


def test_stopping_drops_what_waits_and_waits_for_what_runs(let: threading.Event) -> None:
    pool, begun, dropped = Pool(1, "some"), threading.Event(), threading.Event()
    pool.submit(lambda: (begun.set(), let.wait(20)))
    pool.submit(dropped.set)
    assert begun.wait(10)
    started = time.monotonic()
    pool.stop(started + 0.02)  # what runs may take for ever
    assert 0.02 <= time.monotonic() - started < 5
    threading.Timer(0.02, let.set).start()
    pool.stop(time.monotonic() + 20)
    assert let.is_set() and not dropped.is_set()


def test_a_thread_that_cannot_be_started_takes_its_task_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, done = Pool(2, "some"), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            pool.submit(lambda: pytest.fail("nobody waits for it"))
    pool.submit(done.set)
    assert done.wait(10)
