"""Headers: whether every one is recognised, what cannot be told apart, and what reading one costs over a bare parse.

    python -m benchmarks.headers [--write] [--rounds 60] [--derive]

`--derive` builds the lists of layers anew from diffusers' classes first (needs torch); `--write` pastes the tables into
docs/families.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import pairs
from loravault.formats.families import identify
from loravault.formats.families.index import FAMILIES
from loravault.formats.safetensors_header import FIRST_READ_BYTES, header_of, read_metadata, reader
from loravault.formats.weight_id import weight_id
from tests.formats import confusions, derived, original_names

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures" / "headers"
_JSON = json.JSONDecoder()


def families() -> str:
    """The families, and which of their variants shapes tell."""
    lines = ["| `family` | | variants by shape | variants by words |", "|---|---|---|---|"]
    for family in FAMILIES.values():
        by_shape = [model.variant for model in family.models if model.variant]
        by_words = sorted(set(family.variants.values()) - set(by_shape))
        lines.append(f"| `{family.name}` | {family.title} | {', '.join(by_shape)} | {', '.join(by_words)} |")
    return "\n".join(lines)


def asked() -> str:
    """Every header of the derived set; leaves with 1 if a true family is not even possible."""
    found = list(confusions.answers(lambda layers: layers))
    wrong = [one for one in found if one.family != "unknown" and one.family not in one.possible]
    if wrong:
        raise SystemExit(f"not recognised: {wrong[0]} and {len(wrong) - 1} more")
    right = sum(one.right for one in found)
    said = sum(one.right or one.said == one.family for one in found)
    return (
        f"{confusions.published(found)}\n\n({len(found):,} kinds of headers: family and variant {right:,}, "
        f"family {said:,}; the true family is among the possible ones in all.)"
    )


def real_headers() -> dict[str, derived.Shapes]:
    """Published headers, where they are, else derived ones."""
    if FIXTURES.is_dir():
        found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FIXTURES.glob("*.json"))}
        return {
            name: {key: tuple(shape) for key, shape in rows.items()} for name, rows in found.items() if len(rows) > 900
        }
    return {}


def sdxl() -> derived.Shapes:
    """kohya's adapter of all of SDXL's blocks and both text encoders."""
    layers = original_names.sgm(derived.architectures()["sdxl", None])
    spell, parts = derived.SPELLINGS["kohya"]
    shapes = derived.tensors(
        {path: shape for path, shape in layers.items() if "_blocks" in path or "middle" in path}, spell, parts
    )
    for prefix, width, count in (("lora_te1_", 768, 12), ("lora_te2_", 1280, 32)):
        text = {prefix + path.replace(".", "_"): shape for path, shape in derived.clip(width, count).items()}
        shapes |= derived.tensors(text, str, parts)
    return shapes


def write(folder: Path, name: str, shapes: derived.Shapes) -> Path:
    """A file with these tensors, compact as safetensors writes it, its weights a hole; with metadata as kohya's."""
    rows = derived.header(shapes).tensors
    tags = {"10_my cat": {f"a tag, number {number}": number for number in range(600)}}
    metadata = {f"ss_entry_{number}": "some value" for number in range(60)} | {"ss_tag_frequency": json.dumps(tags)}
    table = {
        key: {"dtype": row.dtype, "shape": row.shape, "data_offsets": row.data_offsets} for key, row in rows.items()
    }
    text = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":")).encode()
    path = folder / f"{name}.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + max(row.end for row in rows.values()))
    return path


def raw_of(path: Path) -> bytes:
    """What every bare loop does first."""
    with path.open("rb") as file:
        data = file.read(FIRST_READ_BYTES)
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def bare_metadata(path: Path) -> object:
    """Only what stands first."""
    text = raw_of(path).decode()
    return _JSON.raw_decode(text, text.index("{", 1))


def bare_json(path: Path) -> object:
    """The whole header with the standard library."""
    return json.loads(raw_of(path))


def bare_msgspec(path: Path) -> object:
    """The whole header with the fastest parser there is."""
    return msgspec.json.decode(raw_of(path))


def listed(path: Path) -> object:
    """Ours: metadata only."""
    with path.open("rb") as file:
        return read_metadata(file)


def identified(path: Path) -> object:
    """Ours: family, variant, network type, rank and alpha."""
    with path.open("rb") as file:
        return identify(header_of(file), reader(file))


def known(path: Path) -> object:
    """Ours: the weight id too."""
    with path.open("rb") as file:
        header = header_of(file)
        return identify(header, reader(file)), weight_id(header, reader(file))


Look = Callable[[Path], object]
PAIRS: tuple[tuple[str, Look, Look], ...] = (
    ("listed / read, `__metadata__` parsed", bare_metadata, listed),
    ("identified / read, `json.loads`", bare_json, identified),
    ("identified / read, `msgspec.json.decode`", bare_msgspec, identified),
    ("identified, weight id / read, `json.loads`", bare_json, known),
)


def cost(rounds: int) -> str:
    """The table of times."""
    lines = ["| header | | bare | ours | ratio |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, shapes in {**real_headers(), "sdxl_kohya (derived)": sdxl()}.items():
            path = write(Path(folder), name.split(" ")[0], shapes)
            label = f"{name}, {len(shapes):,} tensors, {len(raw_of(path)) // 1024} KB"
            for what, bare, ours in PAIRS:
                theirs, mine = _least(bare, ours, path, rounds)
                lines.append(f"| {label} | {what} | {theirs:.2f} ms | {mine:.2f} ms | {mine / theirs:.2f} |")
    return "\n".join([*lines, "", f"(the least of {rounds} rounds in turns; {pairs.machine()})"])


def _least(bare: Look, ours: Look, path: Path, rounds: int) -> tuple[float, float]:
    """Milliseconds of each at its best: others on the machine only ever add to it."""
    times = [(_timed(bare, path), _timed(ours, path)) for _ in range(rounds)]
    return min(one for one, _ in times) * 1000, min(one for _, one in times) * 1000


def _timed(look: Look, path: Path) -> float:
    began = time.perf_counter()
    look(path)
    return time.perf_counter() - began


def main() -> None:
    """Ask, measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="paste into docs/families.md")
    parser.add_argument("--derive", action="store_true", help="build the lists of layers anew from diffusers' classes")
    options = parser.parse_args()
    if options.derive:
        subprocess.run([sys.executable, "-m", "tests.formats.derive"], check=True)
    for name, text in (("families", families()), ("confusions", asked()), ("header-cost", cost(options.rounds))):
        print(f"{text}\n")
        if options.write:
            pairs.paste(name, text, PAGE)


if __name__ == "__main__":
    main()
