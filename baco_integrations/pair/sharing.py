"""Expensive things made once per process and freed when nobody uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Shared(Generic[T]):
    """A registry that makes each thing once, however many threads ask, and keeps none alive."""

    def __init__(self) -> None:
        self._things: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._turns: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the thing of a key, made now if there is none; other keys do not wait for it."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            thing = self._things.get(key)
            if thing is None:
                self._things[key] = thing = make()
            return thing

    def __contains__(self, key: Hashable) -> bool:
        return key in self._things
