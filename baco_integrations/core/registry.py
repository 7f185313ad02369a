"""Expensive things made once per process and freed when nobody uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from .threads import fork_safe

T = TypeVar("T")


class Registry(Generic[T]):
    """A registry that makes each thing once, however many threads ask, and keeps none alive."""

    def __init__(self) -> None:
        self._things: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._turns: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._lock = fork_safe(threading.Lock())

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the thing of a key, made now if there is none; other keys do not wait for it."""
        with self.turn(key):
            thing = self._things.get(key)
            if thing is None:
                self._things[key] = thing = make()
            return thing

    def turn(self, key: Hashable) -> AbstractContextManager[object]:
        """Return the reentrant lock of a key."""
        with self._lock:
            turn: AbstractContextManager[object] = self._turns.setdefault(
                key, fork_safe(threading.RLock())
            )
            return turn

    def __contains__(self, key: Hashable) -> bool:
        return key in self._things
