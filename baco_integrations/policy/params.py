"""What a step knows of its rows: their settings, and what changes from token to token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.params import SamplingParams
from .routers import GuardedRouter, compile_route
from .sampling import Sampling
from .token_classes import ALLOW_LINES, BAN_LINES, BAN_NOTHING

BASE, ALIGNED, NOBODY = 0, 1, 2
"""Sources and owners; nobody owns the word before the first token."""


class PolicyParams(NamedTuple):
    """Settings of ``r`` rows as tensors, fixed while they run.

    Attributes:
        ban: ``(r,)`` which row of `TokenClasses.bans` holds for base.
        content: ``(r,)`` content bits that go to aligned.
        content_from_aligned: ``(r,)`` bool, the content rule reads aligned's top-1 token.
        statistic: ``(r,)`` which statistic the logit rule compares.
        limit: ``(r,)`` base speaks where the statistic is below it.
        only_base: ``(r,)`` bool, the degenerate router ``base``.
        first_aligned: ``(r,)`` bool, aligned gives the first token.
        boundary: ``(r,)`` bool, sides switch only where a word starts.
        gamma: ``(r,)``.
        sampling: The settings of each side, ``(2, r)`` each.
        filters: Whether any row uses top-k, top-p or min-p.
        alternatives: The largest number of alternatives that any row asks for.
        custom: Routers of the users' own, each with the rows ``(k,)`` it routes.
    """

    ban: Tensor
    content: Tensor
    content_from_aligned: Tensor
    statistic: Tensor
    limit: Tensor
    only_base: Tensor
    first_aligned: Tensor
    boundary: Tensor
    gamma: Tensor
    sampling: Sampling
    filters: bool
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
        sides = (params.side("base"), params.side("aligned"))
        lines = BAN_LINES if params.line_breaks == "aligned" else ALLOW_LINES

        def row(value: object, dtype: torch.dtype) -> Tensor:
            return torch.tensor([value], dtype=dtype)

        def setting(name: str, dtype: torch.dtype) -> Tensor:
            return torch.tensor([[getattr(side, name)] for side in sides], dtype=dtype)

        return cls(
            ban=row(BAN_NOTHING if route.only_base else lines, torch.long),
            content=row(route.content, torch.long),
            content_from_aligned=row(params.signal_model == "aligned", torch.bool),
            statistic=row(route.statistic, torch.long),
            limit=row(route.limit, torch.float64),
            only_base=row(route.only_base, torch.bool),
            first_aligned=row(params.first == "aligned", torch.bool),
            boundary=row(params.boundary, torch.bool),
            gamma=row(params.effective_gamma, torch.float64),
            sampling=Sampling(
                setting("temperature", torch.float64),
                setting("top_k", torch.long),
                setting("top_p", torch.float64),
                setting("min_p", torch.float64),
            ),
            filters=any(side.top_k or side.min_p or side.top_p != 1 for side in sides),
            alternatives=params.alternatives,
            custom=() if router is None else ((router, row(0, torch.long)),),
        )

    @classmethod
    def stack(
        cls, parts: Sequence[PolicyParams], device: torch.device | str = "cpu"
    ) -> PolicyParams:
        """Return the settings of all rows of some parts, in their order, where the logits meet."""
        starts = accumulate([len(part.gamma) for part in parts], initial=0)
        members: dict[GuardedRouter, list[Tensor]] = {}
        for part, start in zip(parts, starts, strict=False):
            for router, rows in part.custom:
                members.setdefault(router, []).append(rows + start)
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_ROW}
        sampling = (torch.cat(each, 1) for each in zip(*(p.sampling for p in parts), strict=True))
        return cls(
            **{name: column.to(device) for name, column in columns.items()},
            sampling=Sampling(*(setting.to(device) for setting in sampling)),
            filters=any(part.filters for part in parts),
            alternatives=max(part.alternatives for part in parts),
            custom=tuple((router, torch.cat(rows).to(device)) for router, rows in members.items()),
        )

    def take(self, places: Sequence[int]) -> PolicyParams:
        """Return the settings of some rows, none of which has a router of its own."""
        chosen = torch.tensor(places, device=self.ban.device)
        columns = {name: getattr(self, name)[chosen] for name in PER_ROW}
        sampling = Sampling(*(setting[:, chosen] for setting in self.sampling))
        return self._replace(**columns, sampling=sampling, custom=())


PER_ROW = PolicyParams._fields[: PolicyParams._fields.index("sampling")]
"""The fields of `PolicyParams` that are one tensor ``(r,)`` each."""


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
