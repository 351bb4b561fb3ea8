"""A library of adapters as people have them: real-shaped headers, bodies of real sizes that take no space, sidecars,
previews, copies and broken files, in a tree of categories. The same seed gives the same files, byte by byte.

    python -m benchmarks.library_set DIR [--count 10000] [--seed 4] [--rank 1] [--plain]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.architectures import tensor_table
from benchmarks.writers import TAGS, WRITERS, Subject

SEED = 4


@dataclass(frozen=True)
class Recipe:
    """One kind of adapter, and how many in a hundred are of it."""

    share: float
    architecture: str
    network: str
    writer: str
    version: str
    spec: str
    checkpoint: str = "model.safetensors"
    folder: str = ""
    #: In Civitai's spelling, for sidecars.
    civitai: str = "Other"
    ranks: tuple[int, ...] = (4, 8, 8, 16)


_V1, _XL, _FLUX = "stable-diffusion-v1", "stable-diffusion-xl-v1-base", "flux-1-dev"
_SD_RANKS = (4, 8, 16, 16, 32, 32, 64, 128)
_PONY, _IL = "ponyDiffusionV6XL_v6StartWithThisOne.safetensors", "illustriousXL_v01.safetensors"
RECIPES: tuple[Recipe, ...] = (
    Recipe(20, "sd1", "lora", "kohya", "sd_v1", _V1, "animefull-final-pruned.ckpt", "SD1", "SD 1.5", _SD_RANKS),
    Recipe(3, "sd1", "lora", "kohya-bare", "sd_v1", _V1, folder="SD1", civitai="SD 1.5", ranks=_SD_RANKS),
    Recipe(2, "sd1", "loha", "kohya", "sd_v1", _V1, folder="SD1", civitai="SD 1.5", ranks=(4, 8)),
    Recipe(1, "sd2", "lora", "kohya", "sd_v2", "stable-diffusion-v2-512", folder="SD2", civitai="SD 2.1"),
    Recipe(9, "sdxl", "lora", "kohya", "sdxl_base_v1-0", _XL, "sd_xl_base_1.0.safetensors", "SDXL", "SDXL 1.0"),
    Recipe(9, "sdxl-unet", "lora", "kohya", "sdxl_base_v1-0", _XL, "sd_xl_base_1.0.safetensors", "SDXL", "SDXL 1.0"),
    Recipe(3, "sdxl-unet", "lora", "onetrainer", "sdxl_", _XL, folder="SDXL", civitai="SDXL 1.0"),
    Recipe(2, "sdxl-unet", "lokr", "kohya", "sdxl_base_v1-0", _XL, _PONY, "Pony", "Pony"),
    Recipe(11, "sdxl-unet", "lora", "kohya", "sdxl_base_v1-0", _XL, _PONY, "Pony", "Pony"),
    Recipe(1, "sdxl-unet", "dora", "kohya", "sdxl_base_v1-0", _XL, _IL, "Illustrious", "Illustrious"),
    Recipe(14, "sdxl-unet", "lora", "kohya", "sdxl_base_v1-0", _XL, _IL, "Illustrious", "Illustrious"),
    Recipe(4, "flux-kohya", "lora", "kohya", "flux1", _FLUX, "flux1-dev.safetensors", "Flux", "Flux.1 D"),
    Recipe(5, "flux-attention", "peft", "ai-toolkit", "flux.1", _FLUX, folder="Flux", civitai="Flux.1 D"),
    Recipe(4, "flux-diffusers", "peft", "diffusers", "", "", folder="Flux", civitai="Flux.1 D"),
    Recipe(1, "flux-attention", "peft", "ai-toolkit", "chroma", "chroma", folder="Chroma", civitai="Chroma"),
    Recipe(2, "wan-14b", "peft", "ai-toolkit", "wan_2.1", "wan2.1", folder="Wan", civitai="Wan Video 14B t2v"),
    Recipe(1, "wan-14b-musubi", "lora", "kohya", "wan", "wan2.1", folder="Wan", civitai="Wan Video 14B t2v"),
    Recipe(1, "wan-1.3b", "peft", "nothing", "", "", folder="Wan", civitai="Wan Video 1.3B t2v"),
    Recipe(2, "qwen", "lora", "kohya", "qwen_image", "Qwen-Image", folder="Qwen", civitai="Qwen", ranks=(4, 4, 8)),
    Recipe(3, "z-image", "peft", "ai-toolkit", "zimage", "Z-Image", folder="Z-Image", civitai="ZImageTurbo"),
    Recipe(1, "sd3", "peft", "diffusers", "", "", folder="SD3", civitai="SD 3.5 Medium"),
    Recipe(
        0.5, "hunyuan-video", "lora", "kohya", "hunyuan_video", "hunyuan-video", folder="HV", civitai="Hunyuan Video"
    ),
    Recipe(0.5, "ltx", "peft", "diffusers", "", "", folder="LTX", civitai="LTXV"),
)

_CATEGORIES = ("Characters", "Characters/Anime", "Characters/Games", "Styles", "Styles/Painters", "Concepts", "Poses",
               "Clothing", "Sliders", "Backgrounds", "Vehicles", "Tools")  # fmt: skip
_STEMS = ("ghibli", "ink_outline", "watercolor", "film grain", "Hatsune", "mecha", "knight's armor", "detail tweaker",
          "neon city", "oil painting", "pixel-art", "victorian dress", "add_more_details", "Ünïcode Stil", "水墨",
          "old photo", "clay", "low poly", "eyes", "fox girl", "[style] gouache", "samurai", "steampunk")  # fmt: skip

#: What is found under the name of a model but is none.
FOREIGN: tuple[bytes, ...] = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"5" * 64 + b"\nsize 228456792\n",
    b'{"error":"Unauthorized"}',
    b"",
    b"\0" * 4096,
)


@dataclass
class LibrarySet:
    """What was written."""

    count: int
    seed: int
    rank: int | None
    plain: bool
    #: Adapter files that are whole, and files that are not.
    sound: int = 0
    broken: int = 0
    copies: int = 0
    sidecars: int = 0
    previews: int = 0
    header_bytes: int = 0
    largest_header: int = 0
    #: Bytes that the files say they have; only headers, sidecars and previews take space.
    nominal_bytes: int = 0
    families: dict[str, int] = field(default_factory=dict)

    def told(self) -> str:
        """One sentence of figures."""
        return (
            f"{self.count:,} files ({self.broken} broken, {self.copies} copies; {self.sidecars} sidecars, "
            f"{self.previews} previews); headers {self.header_bytes / max(1, self.sound) / 1000:.0f} KB on average, "
            f"{self.largest_header / 1000:.0f} KB at most; {self.nominal_bytes / self.count / 1e6:.0f} MB a file"
        )


@dataclass(frozen=True)
class Adapter:
    """One file to be written."""

    rel: str
    recipe: Recipe
    subject: Subject
    dtype: str


def write(
    folder: Path, count: int = 10_000, *, seed: int = SEED, rank: int | None = None, plain: bool = False
) -> LibrarySet:
    """Write the set. With `rank` every adapter has that one (smaller bodies); `plain`: no sidecars, previews, copies
    or broken files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = LibrarySet(count, seed, rank, plain)
    families: Counter[str] = Counter()
    taken: set[str] = set()
    last: Adapter | None = None
    for number in range(count):
        rng = Random(f"{seed}:{number}")
        fate = 1.0 if plain else rng.random()
        copied = last if 0.003 <= fate < 0.02 else None
        adapter = _invent(rng, rank, taken) if copied is None else _downloaded_again(copied, rng, taken)
        path = folder / adapter.rel
        path.parent.mkdir(parents=True, exist_ok=True)
        if fate < 0.003:
            path.write_bytes(rng.choice(FOREIGN))
            result.broken += 1
        elif copied is not None:
            _copy(folder / copied.rel, path)
            result.copies += 1
        else:
            cut = 0.02 <= fate < 0.023
            header = _write_adapter(path, adapter, rng, cut=cut)
            result.header_bytes += header
            result.largest_header = max(result.largest_header, header)
            result.broken += cut
            result.sound += not cut
            families[adapter.recipe.architecture] += 1
            last = last if cut else adapter
        result.nominal_bytes += path.stat().st_size
        if not plain:
            _write_beside(path, adapter, rng, result)
        when = 1_700_000_000 + rng.randrange(50_000_000)
        os.utime(path, (when, when))
    result.families = dict(families.most_common())
    return result


def ensure(folder: Path, count: int, *, seed: int = SEED, rank: int | None = None, plain: bool = False) -> LibrarySet:
    """As `write`, but a folder that holds this very set already is taken as it is."""
    note = folder.with_name(f"{folder.name}.json")
    asked = {"count": count, "seed": seed, "rank": rank, "plain": plain}
    if note.exists():
        found = json.loads(note.read_text())
        if asked.items() <= found.items():
            return LibrarySet(**found)
        raise SystemExit(f"{folder} holds another set; name another folder or remove it together with {note.name}")
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty and is not a whole set; name another folder")
    made = write(folder, count, seed=seed, rank=rank, plain=plain)
    note.write_text(json.dumps(asdict(made)))
    return made


def _invent(rng: Random, rank: int | None, taken: set[str]) -> Adapter:
    recipe = rng.choices(RECIPES, [one.share for one in RECIPES])[0]
    stem = f"{rng.choice(_STEMS)}{rng.choice(('', '_v1', '_v2', '-XL', ' (LoRA)', '.v3', '_e10', '-000008'))}"
    place = f"{recipe.folder}/{rng.choice(_CATEGORIES)}"
    rel = f"{place}/{stem}.safetensors"
    while rel in taken:
        rel = f"{place}/{stem} {rng.randrange(10**6):06d}.safetensors"
    taken.add(rel)
    width = rank or rng.choice(recipe.ranks)
    subject = Subject(
        name=Path(rel).stem,
        trigger=f"{rng.choice(TAGS[:50])}{rng.randrange(1000)} style",
        architecture=recipe.architecture,
        version=recipe.version,
        checkpoint=recipe.checkpoint,
        spec=recipe.spec,
        rank=width,
        alpha=rng.choice((width, width / 2, 1)),
        network=recipe.network,
    )
    dtype = rng.choices(("F16", "BF16", "F32"), (60, 33, 7))[0]
    return Adapter(rel, recipe, subject, dtype)


def _downloaded_again(adapter: Adapter, rng: Random, taken: set[str]) -> Adapter:
    """The same file in another folder, mostly under the same name."""
    stem = Path(adapter.rel).stem
    rel = f"Downloads/{stem}.safetensors"
    while rel in taken:
        rel = f"Downloads/{stem} ({rng.randrange(1, 100)}).safetensors"
    taken.add(rel)
    return replace(adapter, rel=rel)


def _write_adapter(path: Path, adapter: Adapter, rng: Random, *, cut: bool) -> int:
    """Header, the beginning of the tensors, and a hole to the end. Returns the length of the header in bytes."""
    metadata = WRITERS[adapter.recipe.writer](adapter.subject, rng)
    table, area = tensor_table(adapter.recipe.architecture, adapter.recipe.network, adapter.subject.rank, adapter.dtype)
    parts = [table]
    if metadata:
        said = b'"__metadata__":' + json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()
        parts.insert(1 if rng.random() < 0.005 else 0, said)  # a few writers put it behind the tensors
    header = b"{" + b",".join(parts) + b"}"
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + _beginning(adapter, rng)[:area])
        file.truncate(8 + len(header) + (area * 2 // 3 if cut else area))
    return len(header)


def _copy(source: Path, target: Path) -> None:
    """The same file again, with its hole: copied as it is, the zeros would take their space."""
    with open(source, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        file.seek(0)
        head = file.read(8 + length + 4096)
    with open(target, "wb") as file:
        file.write(head)
        file.truncate(source.stat().st_size)


def _beginning(adapter: Adapter, rng: Random) -> bytes:
    """The first alpha, if the network has any, then numbers that no other adapter has: else all ids were alike."""
    alpha = b""
    if adapter.recipe.network != "peft":
        number = struct.pack("<f", adapter.subject.alpha)
        alpha = {"F32": number, "F16": struct.pack("<e", adapter.subject.alpha), "BF16": number[2:]}[adapter.dtype]
    return alpha + bytes(rng.choices(range(0x2C, 0x3C), k=64))


def _write_beside(path: Path, adapter: Adapter, rng: Random, result: LibrarySet) -> None:
    """What other tools leave: a third of the adapters has a picture, a quarter a text."""
    if rng.random() < 0.33:
        name = rng.choice((".preview.png", ".preview.png", ".png", ".jpg", ".preview.webp"))
        path.with_name(path.stem + name).write_bytes(_picture(rng.randrange(24), name.rpartition(".")[2]))
        result.previews += 1
    for ending, content in _sidecars(adapter, rng):
        path.with_name(path.stem + ending).write_text(json.dumps(content, indent=4), encoding="utf-8")
        result.sidecars += 1


def _sidecars(adapter: Adapter, rng: Random) -> Iterator[tuple[str, dict[str, object]]]:
    subject, number = adapter.subject, rng.randrange(10**6)
    words = [subject.trigger, ", ".join(rng.sample(TAGS, 4))]
    if rng.random() < 0.15:
        yield ".civitai.info", {
            "id": number, "modelId": number // 3, "name": "v1.0", "baseModel": adapter.recipe.civitai,
            "trainedWords": words, "description": "<p>Use at <b>0.8</b>.</p>",
            "model": {"name": subject.name, "type": "LORA", "nsfw": False, "poi": False},
            "images": [{"url": "https://image.example/1.jpeg", "nsfwLevel": rng.choice((1, 1, 2, 4)), "width": 832,
                        "height": 1216, "type": "image", "meta": {"prompt": f"1girl, {subject.trigger}", "steps": 28}}],
        }  # fmt: skip
    if rng.random() < 0.1:
        yield ".json", {
            "description": f"{subject.name}, my favourite.", "sd version": "SDXL", "activation text": words[0],
            "preferred weight": 0.8, "negative text": "", "notes": "",
        }  # fmt: skip


@cache
def _picture(number: int, kind: str) -> bytes:
    """A small picture: a gradient between two colours, so that it is neither nothing nor large."""
    rng = Random(number)
    mask = Image.radial_gradient("L").resize((192, 256))
    first, second = (Image.new("RGB", (192, 256), tuple(rng.randrange(256) for _ in "rgb")) for _ in "ab")
    target = io.BytesIO()
    Image.composite(first, second, mask).save(target, {"jpg": "JPEG"}.get(kind, kind.upper()))
    return target.getvalue()


def main() -> None:
    """Write a set and say what it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rank", type=int, help="the same rank for all, for smaller bodies")
    parser.add_argument("--plain", action="store_true", help="sound adapters only, nothing beside them")
    options = parser.parse_args()
    began = time.perf_counter()
    made = ensure(options.folder, options.count, seed=options.seed, rank=options.rank, plain=options.plain)
    print(f"{made.told()} ({time.perf_counter() - began:.1f} s)")


if __name__ == "__main__":
    main()
