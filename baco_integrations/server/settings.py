"""How a server listens, whom it lets in, and how much it takes on."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from ..core.errors import ParameterError
from ..core.params import as_tuple
from ..core.settings import Checked, Integer, param

Seconds = Annotated[float, Field(gt=0, le=86400)]


def check_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Return keys that a header can carry.

    Raises:
        ValueError: One is empty, or holds something else than visible ASCII characters.
    """
    for key in keys:
        text = key.get_secret_value()
        if not text or not all("!" <= letter <= "~" for letter in text):
            raise ValueError
    return keys


def as_secrets(value: object) -> object:
    """Make secrets of texts."""
    value = as_tuple(value)
    texts = value if isinstance(value, tuple) else ()
    kept = tuple(SecretStr(each) if isinstance(each, str) else each for each in texts)
    return kept if isinstance(value, tuple) else value


Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(as_secrets), AfterValidator(check_keys)]
Origins = Annotated[
    tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")], ...], BeforeValidator(as_tuple)
]


class ServerSettings(Checked):
    """How a server listens, whom it lets in, and how much it takes on.

    Raises:
        ParameterError: A value is not allowed, or others than this machine could call a server
            that asks for no key; raised when the object is made.
    """

    host: Annotated[str, Field(min_length=1)] = param(
        "127.0.0.1", "an address or a name of this machine", "127.0.0.1 is for this machine alone."
    )
    """The address to listen at; any but this machine's own loopback needs an API key."""
    port: Annotated[Integer, Field(ge=0, lt=2**16)] = param(
        8000, "a whole number from 0 to 65535", "0 takes a free one."
    )
    """The port to listen at; 0 takes a free one."""
    api_keys: Keys = param(
        (), "keys of visible ASCII characters", "One for each line of a file.", secret=True
    )
    """Keys that let a caller in, as ``Authorization: Bearer KEY``; without any, all are let in."""
    allow_origins: Origins = param(
        (), "origins such as 'https://example.org', or '*'", "None is needed for the playground."
    )
    """Web pages of other origins whose scripts may call."""
    max_body_bytes: Annotated[Integer, Field(ge=1024)] = param(
        4 * 2**20, "a whole number of at least 1024", "The default is 4 MiB."
    )
    """Longest body of a request, in bytes."""
    body_timeout: Seconds = param(30.0, "a number of seconds above 0", "The default is 30.")
    """Seconds in which a request's head must have come, then its body, and for which a caller may
    leave what is sent unread."""
    max_prompt_tokens: Annotated[Integer, Field(ge=1)] | None = param(
        None, "a whole number of at least 1", "Leave it out if in doubt.", unset="the window"
    )
    """Longest prompt, in tokens of the aligned model."""
    max_choices: Annotated[Integer, Field(ge=1)] = param(
        128, "a whole number of at least 1", "The default is 128."
    )
    """Most answers of one request: samples, times prompts."""
    request_timeout: Seconds = param(600.0, "a number of seconds above 0", "The default is 600.")
    """Seconds after which a request fails; a request may ask for less."""
    drain_timeout: Seconds = param(30.0, "a number of seconds above 0", "The default is 30.")
    """Seconds that running requests have to end once the server is told to stop."""
    log_prompts: bool = param(False, "True or False", "False keeps prompts and answers out.")
    """Whether prompts and answers are logged."""

    @model_validator(mode="after")
    def _check_exposure(self) -> ServerSettings:
        if not self.api_keys and not is_loopback(self.host):
            raise ParameterError(
                "host",
                "a loopback address, such as 127.0.0.1, where no API key is set",
                self.host,
                "Set a key: --api-key-file FILE, or the environment variable BACO_API_KEY.",
            )
        return self

    def lets_in(self, key: str) -> bool:
        """Tell whether a key is one of the server's, in a time that tells nothing of them."""
        given = sha256(key.encode("utf-8", "surrogateescape")).digest()
        known = [sha256(k.get_secret_value().encode()).digest() for k in self.api_keys]
        return any([compare_digest(given, each) for each in known])  # a list: none is left out


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
