"""Reading with transformers: its settings are put back, and progress is one display."""

from __future__ import annotations

import logging
import threading
import time

import torch
from transformers.utils import logging as transformers_logging

from baco_integrations.models.pair import ModelPair


def test_settings_of_transformers_are_put_back(folders):
    transformers_logging.set_verbosity(logging.INFO)
    try:
        ModelPair.from_pretrained(*folders)
        assert transformers_logging.get_verbosity() == logging.INFO
    finally:
        transformers_logging.set_verbosity_warning()
    assert transformers_logging.set_tqdm_hook(None) is None
    assert torch.get_default_dtype() == torch.float32


def test_progress_is_one_display(folders, capfd):
    ModelPair.from_pretrained(*folders, progress=True)
    shown = capfd.readouterr().err
    assert "Loading" in shown
    assert "it/s" not in shown


def test_tokenizing_from_many_threads(folders):
    loaded = ModelPair.from_pretrained(*folders)
    expected = loaded.render_aligned("Name a <|im_end|> city.", tokenize=True)
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                loaded.render_aligned("Name a <|im_end|> city.", tokenize=True)
            )
        )
        for _ in range(8)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
    assert time.monotonic() - start < 10
