"""Threads and locks that outlive neither the process nor a fork.

A forked child has none of its parent's threads, so whatever they held at that moment would stay
locked for ever. Locks that a child may ask for are open in it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakSet

PATIENCE_S = 5.0
"""A thread without work ends after so many seconds."""

LAST_CALL_S = 2.0
"""When the interpreter ends, work that has begun is waited for so many seconds."""

Lock = TypeVar("Lock")

_LOCKS: WeakSet[Any] = WeakSet()
_POOLS: WeakSet[Pool] = WeakSet()


def fork_safe(lock: Lock) -> Lock:
    """Return a lock, which will be open in forked children whoever holds it in the parent."""
    _LOCKS.add(lock)
    return lock


def _reopen() -> None:
    for lock in list(_LOCKS):
        lock._at_fork_reinit()  # as the standard library does with its own
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reopen)


class Pool:
    """A few threads that do what they are given, in the order in which it comes.

    They begin when there is work and end when there has been none for a while. They do not keep
    the interpreter from ending, as the threads of `concurrent.futures` would.

    Args:
        most: Most threads.
        name: What to call them.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._tasks: deque[Callable[[], object]] = deque()
        self._threads = self._idle = 0
        self._changed = threading.Condition()
        _POOLS.add(self)

    def submit(self, task: Callable[[], object]) -> None:
        """Have something done, which must not raise.

        Raises:
            RuntimeError: The process can start no thread, now or because it is about to end.
        """
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
            if len(self._tasks) <= self._idle or self._threads == self._most:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._changed:
                self._threads -= 1
                if task in self._tasks:  # no other thread has taken it
                    self._tasks.remove(task)
                    raise

    def stop(self, until: float) -> None:
        """Begin nothing more, and wait for what has begun until a time on the monotonic clock.

        A thread in native code that finds the interpreter gone would end the process badly.
        """
        with self._changed:
            self._tasks.clear()
        while self._idle < self._threads and time.monotonic() < until:
            time.sleep(0.001)

    def _work(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Do what comes next; return whether anything came."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._tasks, PATIENCE_S)
            self._idle -= 1
            if not self._tasks:
                self._threads -= 1
                return False
            task = self._tasks.popleft()
        task()
        return True


@atexit.register
def _stop_all() -> None:
    until = time.monotonic() + LAST_CALL_S
    for pool in list(_POOLS):
        pool.stop(until)
