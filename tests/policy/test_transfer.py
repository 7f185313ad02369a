"""Copies between the host and the device keep what they carry."""

from __future__ import annotations

import numpy as np
import torch

from baco_integrations.policy.transfer import download, upload


def test_many_tensors_come_down_in_their_shapes() -> None:
    ids = torch.tensor([[262_143, -1], [2**24, 7]])
    shares = torch.tensor([0.25, torch.nan, 1e-30])
    flags = torch.tensor([True, False])
    found = download(ids, shares, flags, torch.empty(0, 3))
    assert [each.shape for each in found] == [(2, 2), (3,), (2,), (0, 3)]
    np.testing.assert_array_equal(found[0], ids.numpy())
    np.testing.assert_array_equal(found[1], shares.numpy())
    np.testing.assert_array_equal(found[2], [1, 0])


def test_numbers_go_up_in_the_type_that_is_asked_for() -> None:
    assert upload([[1, 2], [True, False]], "cpu").tolist() == [[1, 2], [1, 0]]
    assert upload(np.array([0.1]), "cpu", torch.float32).dtype == torch.float32
    assert upload([0, 2], "meta").device.type == "meta"
