"""Fetching a base: from a Hub of our own, in this process."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loravault.errors import UserError
from loravault.library.hubcache import fetched_base
from loravault.library.hubfetch import HubFile, fetch_base, wanted
from loravault.resources import demo_base

SHA = "0123456789abcdef0123456789abcdef01234567"


def demo_files() -> dict[str, bytes]:
    """The demo base as a repository, with what nobody should fetch beside it."""
    base = demo_base()
    index = json.loads((base / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    parts = [path for path in base.rglob("*") if path.is_file() and path.parent != base]
    found = {path.relative_to(base).as_posix(): path.read_bytes() for path in parts}
    return found | {
        "model_index.json": json.dumps(index).encode(),
        "README.md": b"read me",
        "v1-5-pruned.safetensors": b"whole",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
        "safety_checker/model.safetensors": b"checker",
    }


class Hub:
    """What the Hub answers of one repository."""

    def __init__(self, files: dict[str, bytes], status: int = 200, code: str = "") -> None:
        self.files, self.status, self.code = files, status, code
        #: Paths of the files whose bytes went out.
        self.given: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                if hub.status != 200:
                    self._send(b"{}", {"X-Error-Code": hub.code}, hub.status, body=body)
                elif path.startswith("/api/models/"):
                    siblings = [{"rfilename": name, "size": len(data)} for name, data in hub.files.items()]
                    told = {"id": "some/base", "sha": SHA, "siblings": siblings}
                    self._send(json.dumps(told).encode(), {"Content-Type": "application/json"}, body=body)
                else:
                    name = path.partition("/resolve/")[2].partition("/")[2]
                    data = hub.files[name]
                    etag = hashlib.sha256(data).hexdigest()
                    if body:
                        hub.given.append(name)
                    self._send(data, {"ETag": f'"{etag}"', "X-Repo-Commit": SHA}, body=body)

            def _send(self, data: bytes, headers: dict[str, str], status: int = 200, *, body: bool) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, in a folder of our own; its constants are read when it is imported."""
    import huggingface_hub.constants as hub

    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub(demo_files())
    yield found
    found.close()


@pytest.mark.usefixtures("cache")
def test_a_base_is_fetched_and_found_by_its_name(hub: Hub) -> None:
    """Only what it is read from comes: no pickle, no other precision, no checker; a second time nothing comes."""
    announced: list[HubFile] = []
    arrived: list[str] = []

    base = fetch_base(
        "some/base", on_files=announced.extend, on_file=lambda one: arrived.append(one.name), endpoint=hub.address
    )

    assert (base.name, base.family) == ("some/base", "demo")
    needless = {"README.md", "v1-5-pruned.safetensors"}
    assert set(hub.given) == {
        name
        for name in hub.files
        if name not in needless and not name.startswith("safety") and "fp16" not in name and not name.endswith(".bin")
    }
    assert arrived == [one.name for one in announced]
    assert sum(one.bytes for one in announced) == sum(len(hub.files[name]) for name in arrived)
    unet = Path(base.path) / "unet" / "diffusion_pytorch_model.safetensors"
    assert unet.read_bytes() == hub.files["unet/diffusion_pytorch_model.safetensors"]
    assert fetched_base("some/base", {"HF_HUB_CACHE": str(Path(base.path).parents[2])}) == base
    hub.given.clear()
    fetch_base("some/base", endpoint=hub.address)
    assert hub.given == []


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "The Hub has no some/base, or it is private"),
        (403, "GatedRepo", "some/base wants its terms accepted"),
        (500, "", "some/base could not be fetched"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(hub: Hub, status: int, code: str, words: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(UserError, match=words):
        fetch_base("some/base", endpoint=hub.address)


@pytest.mark.usefixtures("cache")
def test_what_cannot_be_drawn_with_is_refused_before_it_is_fetched(hub: Hub) -> None:
    """A repository with one checkpoint, and one whose weights are pickles."""
    del hub.files["unet/diffusion_pytorch_model.safetensors"]
    hub.files = {name: data for name, data in hub.files.items() if not name.startswith("unet/") or "bin" in name}
    with pytest.raises(UserError, match="has no unet in a form that is opened here"):
        fetch_base("some/base", endpoint=hub.address)
    assert hub.given == ["model_index.json"]
    del hub.files["model_index.json"]
    with pytest.raises(UserError, match="no folder of diffusers"):
        fetch_base("some/base", endpoint=hub.address)
    with pytest.raises(UserError, match="is no name of the Hub"):
        fetch_base("../../etc", endpoint=hub.address)


def test_of_every_part_its_texts_and_its_weights_in_one_precision() -> None:
    files = [HubFile(name, 1) for name in (
        "model_index.json", "unet/config.json", "unet/a.safetensors", "unet/a.fp16.safetensors", "unet/a.bin",
        "unet/a-00001-of-00002.safetensors", "unet/a.safetensors.index.json", "unet/a.safetensors.index.fp16.json",
        "tokenizer/spiece.model", "tokenizer/merges.txt", "other/a.safetensors", "unetx/config.json", "unet.json",
    )]  # fmt: skip
    assert [one.name for one in wanted(files, ["unet", "tokenizer"])] == [
        "model_index.json", "unet/config.json", "unet/a.safetensors.index.json", "unet/a.safetensors",
        "unet/a-00001-of-00002.safetensors", "tokenizer/spiece.model", "tokenizer/merges.txt",
    ]  # fmt: skip
