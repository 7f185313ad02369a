"""What a step knows of its rows: their settings, and what changes from token to token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.params import SamplingParams
from .routers import GuardedRouter, compile_route
from .sampling import Filters, Sampling
from .token_classes import ALLOW_LINES, BAN_LINES, BAN_NOTHING, FIRST_BAN, STARTS_WORD
from .transfer import upload

BASE, ALIGNED, NOBODY = 0, 1, 2
"""Sources and owners; nobody owns the word before the first token."""


class PolicyParams(NamedTuple):
    """Settings of ``r`` rows as tensors, fixed while they run.

    Attributes:
        ban: ``(r,)`` which row of `TokenClasses.bans` holds for base.
        sides: ``(2, r)`` whose raw top-1 token the content rule and the ban look at, as the last
            two logits of a step are numbered: 1 aligned, 2 base.
        flags: ``(3, r)`` which rows of `TokenClasses.flags` are looked up: of those two tokens, and
            of the owner's top-1 token.
        limits: ``(4, r)`` the router's, see `routers.Route`.
        bound: ``(3, r)`` by owner, least logit that its top-1 token has to exceed for a word to
            be its to finish.
        first: ``(r,)`` the owner after whom aligned gives the token: `NOBODY`, or -1 for none.
        only_base: ``(r,)`` bool, the degenerate router ``base``.
        gamma: ``(r,)``.
        sampling: ``(2, 5, r)`` the settings of each side, see `Sampling`.
        filters: The filters that any row uses.
        alternatives: The largest number of alternatives that any row asks for.
        custom: Routers of the users' own, each with the rows ``(k,)`` it routes.
    """

    ban: Tensor
    sides: Tensor
    flags: Tensor
    limits: Tensor
    bound: Tensor
    first: Tensor
    only_base: Tensor
    gamma: Tensor
    sampling: Tensor
    filters: Filters
    alternatives: int
    custom: tuple[tuple[GuardedRouter, Tensor], ...]

    @classmethod
    def build(
        cls,
        params: SamplingParams,
        router: GuardedRouter | None = None,
    ) -> PolicyParams:
        """Compile the settings of one row, on the CPU.

        Args:
            params: What was asked for.
            router: The row's router, if it is of the user's own.
        """
        route = compile_route(params.spec, params.effective_gamma)
        sides = [params.side("base"), params.side("aligned")]
        lines = BAN_LINES if params.line_breaks == "aligned" else ALLOW_LINES
        ban = BAN_NOTHING if route.only_base else lines
        content_side = ALIGNED if params.signal_model == "aligned" else 2
        binds = -math.inf if params.boundary else math.inf
        first = NOBODY if params.first == "aligned" and not route.only_base else -1
        flags = [[route.content], [FIRST_BAN + ban], [STARTS_WORD]]
        return cls(
            ban=torch.tensor([ban]),
            sides=torch.tensor([[content_side], [2]]),
            flags=torch.tensor(flags),
            limits=torch.tensor(route.limits, dtype=torch.float64)[:, None],
            bound=torch.tensor([[binds], [binds], [math.inf]], dtype=torch.float64),
            first=torch.tensor([first]),
            only_base=torch.tensor([route.only_base]),
            gamma=torch.tensor([params.effective_gamma], dtype=torch.float64),
            sampling=torch.stack([torch.stack(Sampling.build(side)) for side in sides]),
            filters=Filters.of(sides),
            alternatives=params.alternatives,
            custom=() if router is None else ((router, torch.tensor([0])),),
        )

    @classmethod
    def stack(
        cls,
        parts: Sequence[PolicyParams],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> PolicyParams:
        """Return the settings of all rows of some parts, in their order.

        Args:
            parts: The parts.
            device: Where the logits meet.
            dtype: What the step computes in: that of the logits, but at least float32.
        """
        starts = accumulate([len(part.gamma) for part in parts], initial=0)
        members: dict[GuardedRouter, list[Tensor]] = {}
        for part, start in zip(parts, starts, strict=False):
            for router, rows in part.custom:
                members.setdefault(router, []).append(rows + start)
        columns = {name: torch.cat([getattr(part, name) for part in parts], -1) for name in PER_ROW}
        return cls(
            **{
                name: upload(each, device, dtype if each.is_floating_point() else None)
                for name, each in columns.items()
            },
            filters=Filters.join([part.filters for part in parts]),
            alternatives=max(part.alternatives for part in parts),
            custom=tuple(
                (router, upload(torch.cat(rows), device)) for router, rows in members.items()
            ),
        )

    def take(self, places: Sequence[int]) -> PolicyParams:
        """Return the settings of some rows, without the routers of the users' own."""
        chosen = upload(places, self.ban.device)
        columns = {name: getattr(self, name)[..., chosen] for name in PER_ROW}
        return self._replace(**columns, custom=())

    def settings_of(self, source: Tensor) -> Sampling:
        """Return each row's sampling settings, those of the side ``(r,)`` that gives its token."""
        return Sampling(*self.sampling.gather(0, source.expand(1, 5, -1))[0].unbind(0))


PER_ROW = PolicyParams._fields[: PolicyParams._fields.index("filters")]
"""The fields of `PolicyParams` that are tensors ``(..., r)``."""


class State(NamedTuple):
    """What changes from token to token, ``(r,)`` each but the last.

    Attributes:
        owner: Source of the previous token, or `NOBODY`.
        position: Tokens decoded so far.
        u_token: Uniform for the token.
        u_route: Uniform for the router.
        decoded: The ids decoded so far, row by row, for routers of the users' own.
    """

    owner: Tensor
    position: Tensor
    u_token: Tensor
    u_route: Tensor
    decoded: Sequence[Sequence[int]] = ()
