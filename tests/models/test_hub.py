"""Finding models: what is refused, in which words, and what is never asked or told."""

from __future__ import annotations

import http.server
import shutil
import threading
from pathlib import Path

import huggingface_hub
import pytest

from baco_integrations.core.errors import ModelNotFoundError, PairError, ParameterError
from baco_integrations.models.pair import ModelPair
from baco_integrations.tiny import WEIGHTS as TINY

SECRET = "hf_secret"


class TestFolders:
    @pytest.mark.parametrize("model", ["", "  ", 3, None])
    def test_neither_path_nor_id(self, model):
        with pytest.raises(ParameterError, match="base must be a folder or an id"):
            ModelPair.from_pretrained(model, "org/model")

    @pytest.mark.parametrize("model", ["./nowhere", "/no/where", "a/b/c", "model.gguf/", "~/nope"])
    def test_missing_folder(self, model):
        with pytest.raises(ModelNotFoundError, match="base: there is no folder") as raised:
            ModelPair.from_pretrained(model, "org/model")
        # Where it was looked for, as `.` and `~` depend on who asks.
        assert repr(str(Path(model).expanduser().absolute())) in str(raised.value)

    @pytest.mark.parametrize("model", ["~no-such-user/model", "a" * 5000])
    def test_paths_that_cannot_be_looked_at(self, model):
        with pytest.raises(ModelNotFoundError, match="aligned: .* cannot be looked at"):
            ModelPair.check(TINY / "base", model)

    @pytest.mark.parametrize("ending", ["", "\0", "/" + "a" * 5000])
    def test_passwords_in_addresses_are_not_told(self, ending):
        with pytest.raises(ModelNotFoundError, match="huggingface.co/org/model") as raised:
            ModelPair.check(f"https://me:{SECRET}@huggingface.co/org/model{ending}", "org/model")
        assert SECRET not in str(raised.value)

    def test_missing_config(self, folders):
        (folders[1] / "config.json").unlink()
        with pytest.raises(ModelNotFoundError, match="aligned has no config.json") as raised:
            ModelPair.from_pretrained(*folders)
        assert str(folders[1] / "config.json") in str(raised.value)

    def test_an_adapter_beside_a_model_is_refused(self, folders, tmp_path):
        (folders[1] / "adapter_config.json").write_text("{}")
        for load in (ModelPair.from_pretrained, ModelPair.check):
            with pytest.raises(PairError, match="a whole model and an adapter.*from_adapter"):
                load(*folders)
        with pytest.raises(PairError, match="a whole model and an adapter"):
            ModelPair.from_adapter(folders[1], folders[1])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine that refuses everything, in the words it is told."""
    told = {"status": 404, "X-Error-Code": "RepoNotFound"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(told["status"])
            self.send_header("X-Error-Code", told["X-Error-Code"])
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield told
    server.shutdown()
    server.server_close()


class TestHub:
    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (403, "GatedRepo", "org/base is gated. Accept its licence .*hf auth login"),
            (404, "RepoNotFound", "org/base does not exist on the hub, or is private"),
            (404, "RevisionNotFound", "org/base has no revision 'v9'"),
        ],
    )
    def test_refusals(self, hub, status, code, message):
        hub |= {"status": status, "X-Error-Code": code}
        with pytest.raises(ModelNotFoundError, match=message) as raised:
            ModelPair.from_pretrained("org/base", "org/aligned", revision="v9", token=SECRET)
        assert raised.value.__cause__ is not None
        assert SECRET not in f"{raised.value}{raised.value.__cause__}"

    def test_offline(self, hub, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE.*local folder"):
            ModelPair.from_preset("qwen2.5-0.5b")

    def test_not_to_be_asked(self, hub):
        with pytest.raises(ModelNotFoundError, match="local_files_only"):
            ModelPair.from_preset("smollm2-135m", local_files_only=True)

    def test_from_the_cache(self, hub, folders, tmp_path, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        commit = "0123456789abcdef0123456789abcdef01234567"
        for side, folder in zip(("base", "aligned"), folders, strict=True):
            repo = tmp_path / "cache" / f"models--org--{side}"
            shutil.copytree(folder, repo / "snapshots" / commit)
            (repo / "refs").mkdir()
            (repo / "refs" / "main").write_text(commit)
        loaded = ModelPair.from_pretrained("org/base", "org/aligned")
        assert loaded.name == "org/base|org/aligned"
        assert loaded.identity["base_revision"] == commit
        (repo / "snapshots" / commit / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match="org/aligned has no weights"):
            ModelPair.from_pretrained("org/base", "org/aligned", base_prompt="plain", dtype="bf16")

    def test_folders_need_no_hub(self, folders, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://nowhere.invalid")
        assert ModelPair.from_pretrained(*map(str, folders)).name.endswith("/aligned")
