"""Who uses a shared decoder."""

from __future__ import annotations

import weakref

from ..core.errors import ParameterError


class Users:
    """Counts users: an object once, until it is removed or collected; each None until removed."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[object] = weakref.WeakSet()
        self._anonymous = 0

    @staticmethod
    def require(user: object) -> None:
        """Refuse a user that cannot be counted once.

        Raises:
            ParameterError: It cannot be weakly referenced and hashed.
        """
        try:
            hash(weakref.ref(user))
        except TypeError:
            if user is not None:
                raise ParameterError(
                    "user",
                    "an object that can be weakly referenced and hashed",
                    user,
                    "It counts until it is gone. Leave it out to count until close().",
                ) from None

    def add(self, user: object | None) -> None:
        """Count a user; each None counts as a new one."""
        if user is None:
            self._anonymous += 1
        else:
            self._known.add(user)

    def remove(self, user: object | None) -> None:
        """Stop counting a user; None stands for one that was added as None."""
        if user is None:
            self._anonymous = max(self._anonymous - 1, 0)
        else:
            self._known.discard(user)

    def __bool__(self) -> bool:
        return bool(self._anonymous or len(self._known))
