"""Switching adapters on a pipeline with SDXL's layers (722 of them adapted), small widths: beside diffusers' own ways.

Widths are small so that what is measured is the switching and not the multiplying. Everything runs in one process, in
turns. After every switch the UNet's output is compared with that of a UNet whose weights were changed by the formula;
who is wrong is not fast. `peft` is no dependency: diffusers' ways need it, and are left out where it is not installed.

    python -m benchmarks.switching [--rounds 10] [--write]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import pairs
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.cache import AdapterShelf
from loravault.engine.devices import choose_device
from loravault.engine.slots import Slots
from loravault.formats.generation import AdapterUse
from tests.formats.original_names import sgm
from tests.tiny import use_of
from tests.tiny_families import make_family

LIMIT = 1e-5
WIDTHS, CROSS, POOLED = (16, 32, 32), 72, 40
#: Alike, or hot-swapping keeps those of the first.
RANK, ALPHA = 8, 4.0
FILES = 4
#: The contenders that are ours stand first, those that merge before the others.
OURS = 4
WEIGHT = 0.8


def make_sdxl(folder: Path) -> Base:
    """A base whose UNet has the blocks of SDXL, each thinner."""
    ref = make_family(folder, "sdxl")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=WIDTHS, layers_per_block=2, cross_attention_dim=CROSS, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + POOLED,
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    return load_base(ref, choose_device("cpu"))


def adapted(base: Base) -> dict[str, str]:
    """Name in kohya's files → module, of the layers that kohya adapts in SDXL's UNet."""
    linear = [
        module
        for (component, module), layer in base.modules.items()
        if component == "unet" and "attentions" in module and isinstance(layer, torch.nn.Linear)
    ]
    named = sgm({module: (number,) for number, module in enumerate(linear)})
    return {name: linear[number] for name, (number, *_) in named.items()}


def make_file(path: Path, base: Base, names: Mapping[str, str], seed: int) -> dict[str, Tensor]:
    """A file in kohya's names, of half precision as they usually are; returns the change of each module."""
    generator = torch.Generator().manual_seed(seed)
    tensors, changes = {}, {}
    for name, module in names.items():
        weight: Any = base.modules["unet", module].weight
        down, up = (
            (torch.randn(shape, generator=generator) * 0.1).half()
            for shape in ((RANK, weight.shape[1]), (weight.shape[0], RANK))
        )
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(ALPHA),
        }
        changes[module] = up.float() @ down.float() * (ALPHA / RANK * WEIGHT)
    save_file(tensors, path)
    return changes


@torch.no_grad()
def output(unet: Any) -> Tensor:
    """One step of the UNet."""
    generator = torch.Generator().manual_seed(1)
    latents, words = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, CROSS, generator=generator)
    more = {"text_embeds": torch.randn(2, POOLED, generator=generator), "time_ids": torch.zeros(2, 6)}
    found: Tensor = unet(latents, 500, words, added_cond_kwargs=more, return_dict=False)[0]
    return found


@dataclass
class Contender:
    """One way to have another adapter in effect."""

    name: str
    unet: Any
    #: Which of the files.
    switch: Callable[[int], None]
    seconds: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    error: float = 0.0

    def turn(self, number: int, wanted: Tensor) -> None:
        """Switches, and looks whether the picture would be right."""
        gc.collect()
        began = time.perf_counter()
        self.switch(number)
        self.seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = output(self.unet)
        self.steps.append(time.perf_counter() - began)
        self.error = max(self.error, float((found - wanted).norm() / wanted.norm()))


def ours(folder: Path, uses: list[AdapterUse]) -> list[Contender]:
    """Merged and in slots, each from memory and from the file."""
    return [
        _ours(make_sdxl(folder / f"{how}-{cold}"), uses, how, cold=cold)
        for how in ("merged", "in slots")
        for cold in (False, True)
    ]


def _ours(base: Base, uses: list[AdapterUse], how: str, *, cold: bool) -> Contender:
    shelf, patcher, slots = AdapterShelf(base), Patcher(base.modules), Slots(base.modules, "unet")
    for use in uses:
        shelf.get(use)

    def switch(number: int) -> None:
        if cold:
            shelf.forget()
        stack = [Strength(shelf.get(uses[number]), WEIGHT, WEIGHT)]
        if how == "merged":
            patcher.apply(stack)
        else:
            slots.apply([stack])

    return Contender(f"loravault, {how}, {'from the file' if cold else 'from memory'}", base.pipe.unet, switch)


def theirs(folder: Path, uses: list[AdapterUse]) -> list[Contender]:
    """diffusers with PEFT: load and unload, hot-swap, and all of them resident."""

    def pipeline(name: str) -> Any:
        return make_sdxl(folder / name).pipe

    reloaded, swapped, resident = (pipeline(name) for name in ("reloaded", "swapped", "resident"))
    for number, use in enumerate(uses):
        resident.load_lora_weights(use.path, adapter_name=f"a{number}")

    def reload(number: int) -> None:
        reloaded.unload_lora_weights()
        reloaded.load_lora_weights(uses[number].path, adapter_name="one")
        reloaded.set_adapters(["one"], [WEIGHT])

    swapped.load_lora_weights(uses[0].path, adapter_name="one")
    swapped.set_adapters(["one"], [WEIGHT])

    def hotswap(number: int) -> None:
        swapped.load_lora_weights(uses[number].path, adapter_name="one", hotswap=True)
        swapped.set_adapters(["one"], [WEIGHT])

    def choose(number: int) -> None:
        resident.set_adapters([f"a{number}"], [WEIGHT])

    return [
        Contender("diffusers: `unload_lora_weights`, `load_lora_weights`", reloaded.unet, reload),
        Contender("diffusers: `hotswap=True`", swapped.unet, hotswap),
        Contender(f"diffusers: `set_adapters`, all {len(uses)} resident", resident.unet, choose),
    ]


def references(folder: Path) -> tuple[list[AdapterUse], list[Tensor], int]:
    """Files, and what the UNet makes of each when its weights are changed by the formula."""
    base = make_sdxl(folder / "reference")
    names = adapted(base)
    uses, wanted = [], []
    for number in range(FILES):
        path = folder / f"{number}.safetensors"
        changes = make_file(path, base, names, number)
        uses.append(use_of(path, WEIGHT))
        before = {module: base.modules["unet", module].weight.data for module in changes}  # type: ignore[union-attr]
        for module, change in changes.items():
            base.modules["unet", module].weight.data = before[module] + change  # type: ignore[operator,union-attr]
        wanted.append(output(base.pipe.unet))
        for module, weight in before.items():
            base.modules["unet", module].weight.data = weight  # type: ignore[union-attr]
    return uses, wanted, len(names)


def table(contenders: list[Contender]) -> str:
    """Milliseconds of a switch and of a step behind it, and what the output is off by; beside ours that are merged."""
    warm, cold = (statistics.median(one.seconds) for one in contenders[:2])
    step = statistics.median(contenders[0].steps)
    lines = [
        "| | one switch | beside merging from memory | beside merging from the file | one step after it | output |",
        "|---|---|---|---|---|---|",
    ]
    for one in contenders:
        seconds, after = statistics.median(one.seconds), statistics.median(one.steps)
        right = f"✓ {one.error:.0e}" if one.error <= LIMIT else f"✗ {one.error:.0e}"
        lines.append(
            f"| {one.name} | {seconds * 1000:.1f} ms | {seconds / warm:.1f}× | {seconds / cold:.1f}× | "
            f"{after * 1000:.0f} ms ({after / step:.2f}×) | {right} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the table; 1 if our output is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="paste the table into docs/promises.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uses, wanted, count = references(folder)
        contenders = ours(folder, uses)
        if importlib.util.find_spec("peft") is not None:
            contenders += theirs(folder, uses)
        else:
            print("peft is not installed: diffusers is not measured", file=sys.stderr)
        for turn in range(options.rounds + 1):
            for one in contenders:
                one.turn(turn % FILES, wanted[turn % FILES])
                if turn == 0:  # what happens only once
                    one.seconds.clear()
                    one.steps.clear()
    text = f"{table(contenders)}\n\n({count} layers, rank {RANK}, {options.rounds} rounds; {pairs.machine()})"
    print(text)
    if options.write:
        pairs.paste("switching", text)
    return int(any(one.error > LIMIT for one in contenders[:2]))


if __name__ == "__main__":
    sys.exit(main())
