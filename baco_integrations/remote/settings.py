"""Which server decodes, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ..core.errors import ParameterError
from ..core.params import SamplingParams
from ..core.settings import Checked, Integer, param
from ..models.options import LoadOptions

_URL = "a URL such as 'http://host:8000/v1', without user, password and query"
_WHERE = "It is where `baco serve` listens; a key is given as api_key."


def server_url(url: str) -> str:
    """Return a URL without a slash at its end; one without a path gets ``/v1``.

    Raises:
        ParameterError: It is none, or holds a password or a query, which errors would show.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    secret = set(url) & set("@?#")
    if not right or secret or not url.isprintable() or " " in url:
        raise ParameterError("base_url", _URL, type(url) if secret else url, _WHERE)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


Key = Annotated[str, Field(pattern="^[!-~]*$")]
"""A key of a server; libraries of HTTP show one that cannot stand in a header."""
KEY_RULE = ("visible ASCII characters", "Look for a space or a line break at its end.")
"""What a key may be, and the remedy where it is not."""


class RemoteOptions(Checked):
    """Which server decodes, and how it is asked.

    Raises:
        ParameterError: A value is not allowed; raised when the object is made.
    """

    base_url: Annotated[str, AfterValidator(server_url)] | None = param(
        None, _URL, _WHERE, unset="this process decodes"
    )
    """Where a server (`baco serve`) decodes instead of this process, as in http://host:8000/v1;
    pair is then what it calls the pair, and may be left out where it has only one."""
    api_key: Key | None = param(
        None,
        *KEY_RULE,
        unset="that of the environment variable BACO_API_KEY",
        secret=True,
    )
    """The server's key, or else what the environment variable BACO_API_KEY says. Without base_url
    it is taken for token. It is never shown."""
    max_retries: Annotated[Integer, Field(ge=0)] = param(
        2, "a whole number of at least 0", "0 never asks twice."
    )
    """How often a server is asked again that cannot be reached, or is busy; a model of this process
    has nothing to retry."""


def check_remote_choice(given: Mapping[str, Any], params: SamplingParams) -> None:
    """Refuse what cannot go over the network, before anything does.

    Args:
        given: The fields of an adapter that are given.
        params: Its settings of decoding.

    Raises:
        ParameterError: A model or how to load it is given, or an object in place of a name.
    """
    for name in ("model", "base", "aligned", *LoadOptions.model_fields):
        if name in given:
            raise ParameterError(
                name,
                "left out where base_url is given",
                type(given[name]),
                "The server loads the models: say it there, see `baco serve --help`.",
            )
    pair = given.get("pair")
    if pair is not None and (not isinstance(pair, str) or not pair):
        raise ParameterError(
            "pair",
            "the name that the server has for a pair, where base_url is given",
            pair,
            "It may be left out where the server has only one.",
        )
    require_named_router(params)


def require_named_router(params: SamplingParams) -> None:
    """Refuse a router that cannot go over the network.

    Raises:
        ParameterError: It is an object.
    """
    if not isinstance(params.router, str):
        raise ParameterError(
            "router",
            "the name of a router where base_url is given",
            params.router,
            "A router of your own runs where the models are: load them in this process.",
        )
