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
    """Register a lock to be unlocked in forked children, and return it."""
    _LOCKS.add(lock)
    return lock


def reopen_locks() -> None:
    """Unlock all locks of `fork_safe` in a forked child, and forget the parent's threads."""
    for lock in list(_LOCKS):
        lock._at_fork_reinit()  # as the standard library does with its own
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reopen_locks)


class Pool:
    """A few threads that do what they are given, in the order in which it comes.

    They begin when there is work and end when there has been none for a while. They do not keep
    the interpreter from ending, as the threads of `concurrent.futures` would.

    Args:
        most: Most threads.
        name: What to call them.

    Attributes:
        threads: How many threads there are.
        idle: How many of them wait for work.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._tasks: deque[Callable[[], object]] = deque()
        self.threads = self.idle = 0
        self._changed = threading.Condition()
        _POOLS.add(self)

    def submit(self, task: Callable[[], object]) -> None:
        """Run a task, which must not raise, in a thread of the pool.

        Raises:
            RuntimeError: The process can start no thread, now or because it is about to end.
        """
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
            if len(self._tasks) <= self.idle or self.threads == self._most:
                return
            self.threads += 1
        try:
            threading.Thread(target=self.work, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._changed:
                self.threads -= 1
                if task in self._tasks:  # no other thread has taken it
                    self._tasks.remove(task)
                    raise

    def stop(self, until: float) -> None:
        """Drop waiting tasks; wait for running ones, at most until `until` by `time.monotonic`.

        A thread that returns from native code when the interpreter is gone may crash the process.
        """
        with self._changed:
            self._tasks.clear()
        while self.idle < self.threads and time.monotonic() < until:
            time.sleep(0.001)

    def work(self) -> None:
        """Run tasks until none has come for `PATIENCE_S` seconds; the body of each thread."""
        while True:
            with self._changed:
                self.idle += 1
                self._changed.wait_for(lambda: self._tasks, PATIENCE_S)
                self.idle -= 1
                if not self._tasks:
                    self.threads -= 1
                    return
                task = self._tasks.popleft()
            task()
            del task  # what it holds is free while this thread waits


@atexit.register
def stop_pools() -> None:
    """Stop all pools, waiting `LAST_CALL_S` seconds at most; called when the interpreter ends."""
    until = time.monotonic() + LAST_CALL_S
    for pool in list(_POOLS):
        pool.stop(until)
