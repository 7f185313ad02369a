"""Errors: each can be pickled and copied, whatever it was raised about."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

from baco_integrations.core import errors
from baco_integrations.core.errors import (
    BacoError,
    MissingExtraError,
    ParameterError,
    nearest,
    shorten,
)

CLASSES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BacoError)
]


def _raised_by(kind: type[BacoError], received: object = (1, "x")) -> BacoError:
    if issubclass(kind, ParameterError):
        return kind("gamma", "a number", received, "Pass one.")
    return kind("Reading", "extra") if kind is MissingExtraError else kind("It went wrong.")


def _pickled(error: BacoError) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _pickled])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_is_the_same_error(kind: type[BacoError], again: Any) -> None:
    error = _raised_by(kind)
    copied = again(error)
    assert type(copied) is kind
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


@pytest.mark.parametrize("received", [threading.Lock(), lambda: 0, object(), (x for x in ())])
def test_what_cannot_go_along_leaves_its_text(received: object) -> None:
    error = _raised_by(ParameterError, received)
    copied = _pickled(error)
    assert str(copied) == str(error) == str(_pickled(copied))
    assert copied.received == shorten(received)
    assert (copied.parameter, copied.allowed, copied.remedy) == ("gamma", "a number", "Pass one.")


def test_what_cannot_be_shown_is_told_by_its_type() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert "got <list>. Pass one." in str(_raised_by(ParameterError, nested))


def test_what_is_far_too_long_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nearest("gama", ["gamma"]) == "Did you mean 'gamma'? "
    monkeypatch.delattr(errors.difflib, "get_close_matches")
    assert nearest("gamma" * 1000, ["gamma"]) == ""
