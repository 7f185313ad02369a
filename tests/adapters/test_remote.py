"""Adapters whose models are on another machine: what they are given, say and keep to themselves."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

from baco_integrations import ScriptedPair
from baco_integrations.adapters.base import Adapter
from baco_integrations.core.errors import ParameterError
from baco_integrations.remote.settings import RemoteOptions
from tests.scripted import cities
from tests.server.serving import serving

URL = "http://127.0.0.1:1/v1"
KEY = "sk-secret"
PAIR = cities()


class Router:
    def route(self, inputs: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pair": PAIR}, "pair must be the name that the server has for a pair"),
        ({"pair": ""}, "pair must be the name"),
        ({"base": "a", "aligned": "b"}, "base must be left out where base_url is given"),
        ({"model": "a"}, "model must be left out where base_url is given"),
        ({"dtype": "float16"}, "dtype must be left out where base_url is given"),
        ({"token": KEY}, "token must be left out where base_url is given"),
        ({"base_prompt": "qa"}, "The server loads the models"),
        ({"router": Router()}, "router must be the name of a router where base_url is given"),
        ({"gamma": 2}, "gamma must be a number from 0"),
        ({"max_retries": -1}, "max_retries must be a whole number of at least 0"),
        ({"api_key": ["a"]}, "api_key must be visible ASCII characters"),
        ({"api_key": f"{KEY}\n"}, "Look for a space or a line break"),
    ],
)
def test_what_cannot_go_over_the_network_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says) as caught:
        Adapter(base_url=URL, **given)
    assert KEY not in f"{caught.value}{vars(caught.value)}"


@pytest.mark.parametrize(
    "url",
    ["", "host:8000", "ftp://host/v1", "http://", "http://h:x", "http://a b", "http://h\n", 5],
)
def test_no_url(url: Any) -> None:
    with pytest.raises(
        ParameterError, match="base_url must be a URL such as 'http://host:8000/v1'"
    ):
        Adapter(base_url=url)


@pytest.mark.parametrize(
    "url", [f"http://{KEY}@host/v1", f"http://host?key={KEY}", f"http://h#{KEY}"]
)
def test_a_url_with_a_secret_is_not_told(url: str) -> None:
    with pytest.raises(ParameterError, match="without user, password and query") as caught:
        Adapter(base_url=url)
    assert KEY not in f"{caught.value}{vars(caught.value)}"


def test_urls() -> None:
    for url in ("http://host", "http://host/", "http://host/v1/"):
        assert RemoteOptions(base_url=url).base_url == "http://host/v1"
    assert RemoteOptions(base_url="https://[::1]:8/baco/v1").base_url == "https://[::1]:8/baco/v1"


def test_nothing_is_asked_before_the_first_call() -> None:
    adapter = Adapter(base_url=URL, gamma=0.2)
    assert (adapter.model_name, adapter.context_window()) == (URL, None)
    assert Adapter(base_url=URL, pair="p").model_name == "p"


def test_the_extra_may_be_missing() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from baco_integrations.adapters.base import Adapter\n"
        "try: Adapter(base_url='http://host').decoder\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Run: pip install 'baco-integrations[client]'" in run.stdout


def test_decoders_are_shared_by_server_key_and_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = Adapter(base_url=URL, pair="p", api_key=KEY)
    assert adapter.decoder is adapter.with_settings({"gamma": 0.2}).decoder
    assert adapter.decoder is pickle.loads(pickle.dumps(adapter)).decoder
    others = [{"pair": "q"}, {"api_key": "other"}, {"base_url": URL + "/x"}, {"max_retries": 0}]
    for other in others:
        given = {"base_url": URL, "pair": "p", "api_key": KEY, **other}
        assert Adapter(**given).decoder is not adapter.decoder
    monkeypatch.setenv("BACO_API_KEY", KEY)
    assert Adapter(base_url=URL, pair="p").decoder is adapter.decoder
    monkeypatch.setenv("BACO_API_KEY", "")
    assert Adapter(base_url=URL, pair="p").decoder is not adapter.decoder


def test_the_key_is_kept() -> None:
    adapter = Adapter(base_url=URL, api_key=KEY)
    told = [repr(adapter), adapter.model_dump(), adapter.identity(adapter.request_params({}))]
    assert KEY not in str(told)
    # Of a model of this process it is the hub's.
    assert Adapter(pair="tiny", api_key=KEY).token.get_secret_value() == KEY
    assert Adapter(pair="tiny", api_key=KEY, token="other").token.get_secret_value() == "other"
    assert Adapter(pair=PAIR, api_key=KEY).token is None


def test_caches_tell_servers_and_settings_apart() -> None:
    def identity(url: str = URL, pair: str | None = "p", **settings: Any) -> str:
        adapter = Adapter(base_url=url, pair=pair, **settings)
        return str(adapter.identity(adapter.request_params({})))

    assert identity() == identity(api_key=KEY, max_retries=5, timeout=7)
    known = {identity(), identity(URL + "/x"), identity(pair="q"), identity(pair=None)}
    known |= {identity(gamma=0.6), identity(router="h"), identity(base_sampling={"top_k": 1})}
    assert len(known) == 7


def test_names_and_windows_come_from_the_server() -> None:
    pair: ScriptedPair = PAIR
    with serving({"rome": pair}) as running:
        adapter = Adapter(base_url=running.api)
        assert adapter.context_window() is None
        assert adapter.context_window(fetch=True) == 2048
        assert (adapter.model_name, adapter.context_window()) == ("rome", 2048)
        assert adapter.decoder.generate("City?")[0].text
