"""A registry: others do not wait, and failures are not remembered."""

from __future__ import annotations

import threading

import pytest

from baco_integrations.core.registry import Registry


class TestRegistry:
    def test_other_keys_do_not_wait(self):
        shared, release, made = Registry(), threading.Event(), threading.Event()

        class Thing:
            pass

        def slow():
            made.set()
            assert release.wait(10)
            return Thing()

        thread = threading.Thread(target=lambda: shared.get("slow", slow))
        thread.start()
        assert made.wait(10)
        thing = shared.get("quick", Thing)
        assert shared.get("quick", Thing) is thing
        release.set()
        thread.join()

    def test_failure_is_not_remembered(self):
        shared = Registry()
        with pytest.raises(ZeroDivisionError):
            shared.get("key", lambda: 1 / 0)
        assert "key" not in shared
        thing = shared.get("key", TestRegistry)
        assert shared.get("key", TestRegistry) is thing
