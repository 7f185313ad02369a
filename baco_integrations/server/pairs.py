"""The pairs that a server serves, by name: loaded at its start, or on first use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ParameterError
from ..core.params import SamplingParams
from ..decoder.decoder import Decoder
from ..decoder.pairs import check_pair_choice, open_pair
from ..engines.base import EngineSettings
from ..models.base import Pair
from ..models.presets import PRESETS


@dataclass(eq=False)
class ServedPair:
    """A pair by its name.

    Attributes:
        name: What requests call it.
        pair: A preset's name, ``"tiny"`` or a loaded pair; None where base and aligned are given.
        base: The base model's folder or id.
        aligned: The aligned model's.
        decoder: Its decoder, once it is loaded.
        created: When it was named to the server, in seconds of Unix time.
    """

    name: str
    pair: str | Pair | None
    base: str | None = None
    aligned: str | None = None
    decoder: Decoder | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    opening: asyncio.Task[Decoder] | None = None

    @property
    def models(self) -> tuple[str | None, str | None]:
        """What base and aligned are called."""
        preset = PRESETS.get(self.pair.lower()) if isinstance(self.pair, str) else None
        return (preset.base, preset.aligned) if preset else (self.base, self.aligned)


class ServedPairs:
    """The pairs of a server.

    Args:
        pairs: By name, a preset's name, ``"tiny"``, a loaded pair, or a tuple of base and aligned;
            or a list of presets' names.
        defaults: Settings of requests that give none, by their names in `SamplingParams`.
        loading: Settings of `LoadOptions` for those that are not loaded yet.
        engine: Settings of `EngineSettings`.

    Attributes:
        max_prompt_tokens: As for `Decoder`; the application sets it before anything is loaded.

    Raises:
        ParameterError: There is none, or a name or a setting is not allowed; nothing is loaded yet.
    """

    def __init__(
        self,
        pairs: Mapping[str, str | Pair | tuple[str, str]] | list[str],
        *,
        defaults: Mapping[str, Any] | None = None,
        loading: Mapping[str, Any] | None = None,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self.defaults, self._loading = dict(defaults or {}), dict(loading or {})
        SamplingParams(**self.defaults)
        self._engine = dict(engine or {})
        EngineSettings(**self._engine)
        self.max_prompt_tokens: int | None = None
        named = {name: name for name in pairs} if isinstance(pairs, list) else pairs
        self._served = {name: self._named(name, which) for name, which in named.items()}
        if not self._served:
            raise ParameterError("pairs", "at least one pair", pairs, "For example ['tiny'].")

    def _named(self, name: str, which: str | Pair | tuple[str, str]) -> ServedPair:
        if not name or "@" in name or not name.isprintable():
            remedy = "What stands behind @ in a model's id are settings."
            raise ParameterError("pairs", "names without @ and control characters", name, remedy)
        both = which if isinstance(which, tuple) else (None, None)
        pair = None if isinstance(which, tuple) else which
        options = self._loading if isinstance(which, str | tuple) else {}
        check_pair_choice(pair, both[0], both[1], options)
        return ServedPair(name, pair, both[0], both[1])

    def __iter__(self) -> Any:
        return iter(self._served.values())

    @property
    def names(self) -> list[str]:
        """What requests call them."""
        return list(self._served)

    def get(self, name: str) -> ServedPair | None:
        """Return a pair, None if there is none of that name."""
        return self._served.get(name)

    async def decoder(self, served: ServedPair) -> Decoder:
        """Return a pair's decoder; the first call loads the pair while the event loop stays free.

        Raises:
            PairError: The pair cannot be loaded; the next call tries again.
        """
        if served.decoder is None:
            served.opening = served.opening or asyncio.create_task(self._opened(served))
            return await asyncio.shield(served.opening)  # others wait too, if this caller goes
        return served.decoder

    async def _opened(self, served: ServedPair) -> Decoder:
        try:
            served.decoder = await asyncio.to_thread(self._open, served)
            return served.decoder
        finally:
            served.opening = None

    def _open(self, served: ServedPair) -> Decoder:
        own = self._loading if served.pair is None or isinstance(served.pair, str) else {}
        pair = open_pair(served.pair, base=served.base, aligned=served.aligned, **own)
        return Decoder(pair, max_prompt_tokens=self.max_prompt_tokens, **self._engine)

    def close(self) -> None:
        """Close all decoders; requests that still run fail with `DecoderClosedError`."""
        for served in self._served.values():
            if served.decoder is not None:
                served.decoder.close()
