"""Headers of adapters for every base model that diffusers has, in the spellings and algorithms that are used.

The layers come from `architectures.json` (see `derive.py`), other names of them from `original_names.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

from loravault.formats.safetensors_header import Header
from loravault.formats.tensor_table import TensorInfo
from tests.formats.original_names import ORIGINAL, renamed, sgm

Shape = tuple[int, ...]
#: Tensor name -> shape.
Shapes = dict[str, Shape]
Layers = dict[str, Shape]
_DATA = Path(__file__).with_name("architectures.json")


@cache
def architectures() -> dict[tuple[str, str | None], Layers]:
    """(family, variant) → path with dots → shape of the weight, in diffusers' names."""
    result = {}
    for name, rows in json.loads(_DATA.read_text("utf-8")).items():
        family, _, variant = name.partition(" ")
        result[family, variant or None] = {path: tuple(shape) for row, shape in rows.items() for path in expand(row)}
    return result


def expand(path: str) -> Iterator[str]:
    pieces = re.split(r"\[([\d,-]+)\]", path)
    choices = [_numbers(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ("".join(chosen) for chosen in product(*choices))


def _numbers(text: str) -> list[str]:
    runs = [run.split("-") for run in text.split(",")]
    return [str(number) for run in runs for number in range(int(run[0]), int(run[-1]) + 1)]


def clip(width: int, layers: int) -> Layers:
    """A CLIP text encoder."""
    result: Layers = {}
    for layer in range(layers):
        at = f"text_model.encoder.layers.{layer}"
        result |= {f"{at}.self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        result |= {f"{at}.mlp.fc1": (4 * width, width), f"{at}.mlp.fc2": (width, 4 * width)}
    return result


#: What of a model is trained: name → which paths, given all of them.
def subset(name: str, layers: Layers) -> Layers:
    """Part of the layers: `everything`, `blocks`, `attention`, `feed-forward`, `first blocks`, `last blocks`."""
    blocks = {path: shape for path, shape in layers.items() if re.search(r"(?:blocks?|layers|refiner)\.\d", path)}
    if name == "everything":
        return layers
    if name == "blocks":
        return blocks
    if name == "attention":
        return {path: shape for path, shape in blocks.items() if re.search(r"attn|attention|linear1$", path)}
    if name == "feed-forward":
        inner = re.compile(r"\.(?:\w*ff\w*|\w*mlp\w*|feed_forward)\.")
        return {path: shape for path, shape in blocks.items() if inner.search(path)}
    numbers = sorted({_block(path) for path in blocks if _block(path)[1] >= 0})
    stacks = {stack for stack, _ in numbers}
    chosen = set()
    for stack in stacks:
        mine = [number for other, number in numbers if other == stack]
        chosen |= {(stack, number) for number in (mine[:2] if name == "first blocks" else mine[-2:])}
    return {path: shape for path, shape in blocks.items() if _block(path) in chosen}


def _block(path: str) -> tuple[str, int]:
    match = re.search(r"^(.*?(?:blocks?|layers|refiner))\.(\d+)", path)
    return (match[1], int(match[2])) if match else ("", -1)


SUBSETS = ("everything", "blocks", "attention", "feed-forward", "first blocks", "last blocks")

Parts = dict[str, Shape]


def _lora(shape: Shape, rank: int) -> Parts:
    return {"down": (rank, *shape[1:]), "up": (shape[0], rank, *([1] * len(shape[2:])))}


def lora(shape: Shape, rank: int = 16) -> Parts:
    """kohya's parts."""
    parts = _lora(shape, rank)
    return {"lora_down.weight": parts["down"], "lora_up.weight": parts["up"], "alpha": ()}


def peft(shape: Shape, rank: int = 16) -> Parts:
    """PEFT's parts: no alpha."""
    parts = _lora(shape, rank)
    return {"lora_A.weight": parts["down"], "lora_B.weight": parts["up"]}


def peft_named(shape: Shape, rank: int = 16) -> Parts:
    """PEFT's parts as in memory, with the name of the adapter in them."""
    parts = _lora(shape, rank)
    return {"lora_A.default.weight": parts["down"], "lora_B.default.weight": parts["up"]}


def dora(shape: Shape, rank: int = 16) -> Parts:
    """LoRA with magnitudes."""
    return {**lora(shape, rank), "dora_scale": (shape[0], *([1] * (len(shape) - 1)))}


def loha(shape: Shape, rank: int = 8) -> Parts:
    """LyCORIS' Hadamard product; a convolution's kernel is flattened into the columns."""
    columns = _columns(shape)
    return {
        "hada_w1_a": (shape[0], rank), "hada_w1_b": (rank, columns), "hada_w2_a": (shape[0], rank),
        "hada_w2_b": (rank, columns), "alpha": (),
    }  # fmt: skip


def loha_tucker(shape: Shape, rank: int = 8) -> Parts:
    """LoHa with a core for the kernel of a convolution."""
    if len(shape) < 4 or shape[2] == 1:
        return loha(shape, rank)
    core = (rank, rank, *shape[2:])
    return {
        "hada_t1": core, "hada_t2": core, "hada_w1_a": (rank, shape[0]), "hada_w1_b": (rank, shape[1]),
        "hada_w2_a": (rank, shape[0]), "hada_w2_b": (rank, shape[1]), "alpha": (),
    }  # fmt: skip


def lokr(shape: Shape, rank: int = 8, factor: int = 8) -> Parts:
    """LyCORIS' Kronecker product: a small whole matrix, and a large one as a product where that is smaller."""
    (out_small, out_large), (in_small, in_large) = (_factors(size, factor) for size in shape[:2])
    small = (out_small, in_small)
    if len(shape) > 2 and shape[2] > 1:
        return {"lokr_w1": small, "lokr_w2_a": (out_large, rank), "alpha": (),
                "lokr_w2_b": (rank, in_large * _area(shape))}  # fmt: skip
    if rank >= max(out_large, in_large) / 2:
        return {"lokr_w1": small, "lokr_w2": (out_large, in_large, *shape[2:]), "alpha": ()}
    return {"lokr_w1": small, "lokr_w2_a": (out_large, rank), "lokr_w2_b": (rank, in_large), "alpha": ()}


def lokr_full(shape: Shape) -> Parts:
    """LoKr of two whole factors."""
    return lokr(shape, rank=10**6) if len(shape) == 2 else lokr(shape)


def glora(shape: Shape, rank: int = 8) -> Parts:
    """LyCORIS' generalised LoRA."""
    out, into = shape[0], _columns(shape)
    return {"a1.weight": (into, rank), "a2.weight": (rank, into), "b1.weight": (out, rank), "b2.weight": (rank, into),
            "alpha": ()}  # fmt: skip


def ia3(shape: Shape) -> Parts:
    """One factor for each output."""
    return {"weight": (shape[0], 1), "on_input": ()}


def full(shape: Shape) -> Parts:
    """The whole difference."""
    return {"diff": shape, "diff_b": (shape[0],)}


def oft(shape: Shape) -> Parts:
    """Rotations of blocks of outputs."""
    size = next(size for size in (64, 32, 16, 8, 4, 2, 1) if shape[0] % size == 0)
    return {"oft_blocks": (shape[0] // size, size, size), "alpha": ()}


def boft(shape: Shape) -> Parts:
    """Butterfly rotations."""
    size = next(size for size in (8, 4, 2, 1) if shape[0] % size == 0)
    return {"oft_blocks": (3, shape[0] // size, size, size), "rescale": (shape[0], 1), "alpha": ()}


def _columns(shape: Shape) -> int:
    return shape[1] * _area(shape)


def _area(shape: Shape) -> int:
    area = 1
    for edge in shape[2:]:
        area *= edge
    return area


def _factors(size: int, factor: int) -> tuple[int, int]:
    small = next(number for number in range(min(factor, size), 0, -1) if size % number == 0)
    return small, size // small


ALGORITHMS: Mapping[str, Callable[[Shape], Parts]] = {
    "lora": lora, "dora": dora, "loha": loha, "lokr": lokr, "glora": glora, "ia3": ia3, "full": full, "oft": oft,
    "boft": boft,
}  # fmt: skip

#: Name of a spelling → (how a path is written, the parts of LoRA there).
SPELLINGS: Mapping[str, tuple[Callable[[str], str], Callable[[Shape], Parts]]] = {
    "kohya": (lambda path: "lora_unet_" + path.replace(".", "_"), lora),
    "onetrainer": (lambda path: "lora_transformer_" + path.replace(".", "_"), lora),
    "lycoris": (lambda path: "lycoris_" + path.replace(".", "_"), lora),
    "diffusers": (lambda path: "transformer." + path, peft),
    "peft": (lambda path: "base_model.model." + path, peft_named),
    "comfyui": (lambda path: "diffusion_model." + path, peft),
    "bare": (lambda path: path, lora),
}


def spellings_of(family: str, layers: Layers) -> Iterator[tuple[str, Layers]]:
    """(`diffusers` or `original`, layers with these names)."""
    yield "diffusers", layers
    if family in ORIGINAL:
        yield "original", renamed(layers, ORIGINAL[family])
    elif "mid_block.resnets.0.conv1" in layers:
        yield "original", sgm(layers)


def tensors(layers: Layers, spell: Callable[[str], str], parts: Callable[[Shape], Parts]) -> dict[str, Shape]:
    """Tensor name → shape of an adapter of these layers."""
    return {f"{spell(path)}.{part}": size for path, shape in layers.items() for part, size in parts(shape).items()}


def header(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None) -> Header:
    """A header of F16 tensors with these names and shapes, without a file."""
    rows: dict[str, TensorInfo] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for edge in shape:
            size *= edge
        rows[name] = TensorInfo("F16", shape, (end, end + size))
        end += size
    return Header(dict(metadata or {}), rows, 100, 108 + end)


def thinned(layers: Layers) -> Layers:
    """The first two, the middle and the last two blocks of each stack: the same questions in a tenth of the time."""
    stacks: dict[str, set[int]] = {}
    for path in layers:
        stack, number = _block(path)
        stacks.setdefault(stack, set()).add(number)
    kept = set()
    for stack, found in stacks.items():
        numbers = sorted(found)
        middle = len(numbers) // 2
        kept |= {(stack, number) for number in {*numbers[:2], numbers[middle], *numbers[-2:]}}
    return {path: shape for path, shape in layers.items() if _block(path) in kept}


def cases(family: str, layers: Layers) -> Iterator[tuple[str, str, str, Layers]]:
    """(what was trained, algorithm, spelling of the keys, layers) for everything that one model is asked."""
    spelled = list(spellings_of(family, layers))
    for naming, rows in spelled:
        for trained in SUBSETS:
            if part := subset(trained, rows):
                yield trained, "lora", "kohya" if naming == "original" else "diffusers", part
    blocks = subset("blocks", spelled[-1][1])
    for algorithm in ALGORITHMS:
        if algorithm != "lora":
            yield "blocks", algorithm, "lycoris", blocks
