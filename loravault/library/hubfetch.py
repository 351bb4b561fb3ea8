"""Fetches a base from the Hub when its user asks for it, and only into the Hub's own cache, where others share it.

Nothing but configs, tokenizers and safetensors is fetched: the parts that `model_index.json` names, each once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.library.hubcache import fetched_base, is_hub_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: What a folder of diffusers is read from. Weights in another form than safetensors may run programs.
_TEXTS = frozenset({".json", ".txt", ".model"})
_WEIGHTS = ".safetensors"
#: `diffusion_pytorch_model.fp16.safetensors`: the same weights once more, in another precision.
_VARIANT = re.compile(r"\.(fp16|bf16|fp8|non_ema|ema)[.-]")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    #: Its path there.
    name: str
    bytes: int


def wanted(files: Iterable[HubFile], parts: Iterable[str]) -> tuple[HubFile, ...]:
    """Those that a base is read from: what lies in the folders of its parts, in one precision. Pure."""
    known = tuple(files)
    inside = {part: [one for one in known if one.name.startswith(f"{part}/")] for part in parts}
    found = [one for one in known if one.name == "model_index.json"]
    for files_of in inside.values():
        found += [one for one in files_of if os.path.splitext(one.name)[1] in _TEXTS and not _is_of_variant(one)]
        found += [one for one in files_of if one.name.endswith(_WEIGHTS) and not _is_of_variant(one)]
    return tuple(found)


def _is_of_variant(file: HubFile) -> bool:
    return _VARIANT.search(file.name.rpartition("/")[2]) is not None


def fetch_base(
    name: str,
    *,
    on_files: Callable[[tuple[HubFile, ...]], None] = lambda _files: None,
    on_file: Callable[[HubFile], None] = lambda _file: None,
    endpoint: str | None = None,
) -> BaseRef:
    """The base of this id, fetched as far as it is not here yet; goes on where an earlier call was cut off.

    `on_files` is told once what will be fetched, `on_file` each file that is there. `endpoint`: another Hub than the
    public one. Raises `UserError`.
    """
    if not is_hub_id(name):
        raise UserError(f"“{name}” is no name of the Hub; it looks like owner/name.")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi  # noqa: PLC0415 - half a second that nothing else needs
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError  # noqa: PLC0415

    try:
        _fetch(HfApi(endpoint=endpoint), name, on_files, on_file)
    except GatedRepoError as error:
        raise UserError(
            f"{name} wants its terms accepted: do so on its page, say `hf auth login` once, and fetch it again."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub has no {name}, or it is private: look at the spelling, or say `hf auth login` once."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name} could not be fetched: {reason}. The same command goes on where it stopped.") from error
    found = fetched_base(name, os.environ)
    if found is None:
        raise UserError(f"{name} was fetched, but it is no base that pictures can be made with here.")
    return found


def _fetch(
    api: HfApi,
    name: str,
    on_files: Callable[[tuple[HubFile, ...]], None],
    on_file: Callable[[HubFile], None],
) -> None:
    info = api.model_info(name, files_metadata=True)
    files = [HubFile(one.rfilename, one.size or 0) for one in info.siblings or ()]
    if not any(one.name == "model_index.json" for one in files):
        raise UserError(
            f"{name} is no folder of diffusers (it has no model_index.json). A single .safetensors file of it can be "
            "put into a folder with bases."
        )
    index = api.hf_hub_download(name, "model_index.json", revision=info.sha)
    with open(index, encoding="utf-8") as file:
        told = json.load(file)
    parts = _parts(told)
    chosen = wanted(files, parts)
    if lacking := [part for part in parts if not any(one.name.startswith(f"{part}/") for one in chosen)]:
        raise UserError(
            f"{name} has no {lacking[0]} in a form that is opened here: safetensors, in its usual precision."
        )
    on_files(chosen)
    for one in chosen:
        api.hf_hub_download(name, one.name, revision=info.sha)
        on_file(one)


def _parts(told: object) -> tuple[str, ...]:
    """The folders that a `model_index.json` names, but those nobody needs to draw: who checks and who extracts."""
    if not isinstance(told, dict):
        return ()
    needless = {"safety_checker", "feature_extractor", "image_encoder"}
    return tuple(
        part
        for part, value in told.items()
        if isinstance(value, list) and len(value) == 2 and value[0] and part not in needless and "/" not in part
    )
