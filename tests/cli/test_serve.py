"""`baco serve`: what is refused before anything is loaded or listened at."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from baco_integrations.cli.serve import named_pairs, read_keys
from baco_integrations.core.errors import ParameterError
from baco_integrations.server import ServerSettings
from tests.commands import baco


def test_pairs_have_names() -> None:
    named = named_pairs(["tiny", "mine=org/base+org/aligned"])
    assert named == {"tiny": "tiny", "mine": ("org/base", "org/aligned")}


def test_one_model_is_served_by_its_own_name(tmp_path: Path) -> None:
    named = named_pairs([], ["org/model", f"{tmp_path}", f"mine={tmp_path}"])
    assert named == {
        "org/model": ("org/model", "org/model"),
        tmp_path.name: (str(tmp_path), str(tmp_path)),
        "mine": (str(tmp_path), str(tmp_path)),
    }
    for models in (["=x"], ["x="], ["x", "x"], ["tiny=x"]):
        with pytest.raises(ParameterError, match="MODEL or NAME=MODEL"):
            named_pairs(["tiny"], models)


@pytest.mark.parametrize("given", [["a=b"], ["a=b+"], ["a=+b"], ["tiny", "tiny"]])
def test_pairs_that_are_none(given: list[str]) -> None:
    with pytest.raises(ParameterError, match="NAME=BASE\\+ALIGNED"):
        named_pairs(given)


def test_keys_come_from_a_file_or_else_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACO_API_KEY", " one \n")
    assert read_keys(None) == ("one",)
    file = tmp_path / "keys"
    file.write_text("two\n\n three\n")
    assert read_keys(file) == ("two", "three")
    file.write_text("four", "utf-8-sig")
    assert read_keys(file) == ("four",)
    file.write_text("five", "utf-16")  # as some shells write it
    with pytest.raises(ParameterError, match="visible ASCII"):
        ServerSettings(api_keys=read_keys(file))
    file.write_text("\n")
    with pytest.raises(ParameterError, match="one key a line"):
        read_keys(file)
    monkeypatch.delenv("BACO_API_KEY")
    assert read_keys(None) == ()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--host", "0.0.0.0"), "--host must be a loopback address"),
        (("--pair", "tinny"), "Did you mean 'tiny'?"),
        (("--pair", "a@b=x+y"), "names without @"),
        (("--gamma", "2"), "--gamma must be a number from 0"),
        (("--port", "70000"), "--port must be a whole number from 0 to 65535"),
        (("--allow-origins", "example.org"), "--allow-origins must be origins"),
    ],
)
def test_what_is_refused(args: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACO_API_KEY", raising=False)
    assert said in " ".join(baco("serve", *args, code=2).stderr.split())


def test_a_bad_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACO_API_KEY", "bad kéy")
    output = baco("serve", code=2).output
    assert "BACO_API_KEY" in output or "api_keys" in output
    assert "kéy" not in output


def test_a_server_keeps_what_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def listen(
        pairs: object, settings: object, *, load: bool, started: Callable[[int], None]
    ) -> None:
        seen.append(gc.get_freeze_count())
        started(80)
        seen.append(gc.get_freeze_count())

    monkeypatch.setattr("baco_integrations.server.serve", listen)
    try:
        baco("serve")
    finally:
        gc.unfreeze()
    assert seen[0] < 1000 < seen[1]


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = baco("serve", "--port", port, code=1).stderr
    assert said == f"Error: Address already in use: 127.0.0.1:{port}\n"
