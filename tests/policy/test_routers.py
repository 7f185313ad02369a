"""What a router of a user's own is shown."""

from __future__ import annotations

import torch

from baco_integrations import Decoder, SamplingParams
from baco_integrations.policy.routers import RouteInputs
from tests.pairs import random_pair


class Alternating:
    """Base speaks at every other position; notes what it was shown."""

    def __init__(self) -> None:
        self.shown: set[tuple[tuple[int, ...], int]] = set()

    def route(self, inputs: RouteInputs) -> torch.Tensor:
        for decoded, owner, position in zip(
            inputs.decoded, inputs.owner.tolist(), inputs.position.tolist(), strict=True
        ):
            assert len(decoded) == position
            self.shown.add((tuple(decoded), owner))
        return inputs.position % 2 == 0


def test_a_router_is_shown_its_own_rows_tokens_and_owners() -> None:
    router = Alternating()
    params = [
        SamplingParams(router="rand", gamma=0.5, n=2, seed=1, max_tokens=9),
        SamplingParams(router=router, n=3, seed=2, max_tokens=9, boundary=False),
        SamplingParams(router="aligned", seed=3, max_tokens=5),
    ]
    with Decoder(random_pair(), max_rows=4, lookahead=3) as decoder:
        results = decoder.generate_batch(["Name a city."] * 3, params)
    owners = {"base": 0, "aligned": 1}
    wanted = set()
    for completion in results[1]:
        for place in range(len(completion.steps)):
            before = completion.steps[:place]
            owner = owners[before[-1].source] if before else 2
            wanted.add((tuple(step.token_id for step in before), owner))
    assert router.shown == wanted and {owner for _, owner in wanted} == {0, 1, 2}
