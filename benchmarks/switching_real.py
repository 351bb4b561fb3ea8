"""Switching adapters on UNets of the real size of SD 1.5 and SDXL, random weights: merged, in slots, and diffusers.

All ways in one process and on one UNet, in turns. After every switch the UNet's output is compared with that of the
same UNet whose weights were changed by the formula. What takes more memory than there is, is left out and said.

    python -m benchmarks.switching_real [--rounds 3] [--rank 32] [--only sd15] [--write]
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import pairs
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base
from loravault.engine.bases.base import make_base
from loravault.engine.cache import AdapterShelf
from loravault.engine.slots import Slots
from loravault.formats.generation import AdapterUse
from loravault.resources import base_parts
from tests.tiny import use_of

WEIGHT, FILES = 0.8, 2
#: Latents of a picture of 256×256, prompt and none.
SIDE, BATCH = 32, 2


@dataclass(frozen=True)
class Size:
    """A UNet to be measured."""

    name: str
    shown: str
    pipeline: str
    dtype: torch.dtype
    #: What the output may be off by, relative: rounding of the weights' precision through the whole depth.
    limit: float
    #: Free memory it takes, in bytes: the weights, those merged, and what diffusers has beside them.
    needs: int


SIZES = (
    Size("sd15", "SD 1.5, fp32", "StableDiffusionPipeline", torch.float32, 1e-5, 8 << 30),
    Size("sdxl", "SDXL, bf16", "StableDiffusionXLPipeline", torch.bfloat16, 3e-2, 12 << 30),
)


def make_unet(size: Size) -> Any:
    """With weights as if at the beginning of a training; numbers repeat, as making billions of them takes minutes."""
    config = diffusers.UNet2DConditionModel.load_config(base_parts() / "configs" / size.name / "unet")
    with torch.device("meta"):
        unet: Any = diffusers.UNet2DConditionModel.from_config(config)
    unet = unet.to(size.dtype).to_empty(device="cpu").eval().requires_grad_(False)
    chance = torch.randn((1 << 22) + 1, generator=torch.Generator().manual_seed(0))
    for name, one in unet.named_parameters():
        if one.ndim < 2:
            one.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        flat, spread = one.view(-1), (one[0].numel()) ** -0.5
        for begin in range(0, flat.numel(), chance.numel()):
            part = flat[begin : begin + chance.numel()]
            part.copy_(chance[: part.numel()] * spread)
    return unet


def pipeline_around(size: Size, unet: Any) -> Any:
    """With nothing else in it."""
    none = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    if size.name == "sdxl":
        none |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
        return diffusers.StableDiffusionXLPipeline(**none, unet=unet, scheduler=diffusers.DDIMScheduler())  # type: ignore[arg-type]
    return diffusers.StableDiffusionPipeline(
        **none, unet=unet, scheduler=diffusers.DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # type: ignore[arg-type]  # fmt: skip


@torch.no_grad()
def output(unet: Any, size: Size) -> Tensor:
    """One step of the UNet, in fp32."""
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(size.dtype)

    more = {}
    if size.name == "sdxl":
        more["added_cond_kwargs"] = {"text_embeds": numbers(BATCH, 1280), "time_ids": torch.zeros(BATCH, 6)}
    words = numbers(BATCH, 77, unet.config.cross_attention_dim)
    found: Tensor = unet(numbers(BATCH, 4, SIDE, SIDE), 500, words, return_dict=False, **more)[0]
    return found.float()


def adapted(base: Base) -> list[str]:
    """The layers that kohya adapts: those of the attentions."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return [name for (_, name), one in base.modules.items() if "attentions" in name and isinstance(one, kinds)]


def make_file(path: Path, base: Base, rank: int, seed: int) -> None:
    """In kohya's names and half precision."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name in adapted(base):
        weight: Any = base.modules["unet", name].weight
        ones = [1] * (weight.ndim - 2)
        flat = f"lora_unet_{name.replace('.', '_')}"
        down = torch.randn((rank, weight.shape[1], *ones), generator=generator) * weight.shape[1] ** -0.5
        up = torch.randn((weight.shape[0], rank, *ones), generator=generator) * 0.02
        tensors |= {
            f"{flat}.lora_down.weight": down.half(),
            f"{flat}.lora_up.weight": up.half(),
            f"{flat}.alpha": torch.tensor(float(rank)),
        }
    save_file(tensors, path)


def reference(base: Base, shelf: AdapterShelf, use: AdapterUse, size: Size) -> Tensor:
    """The output with weights changed by the formula, one by one; they are put back."""
    before = {}
    for change in shelf.get(use).changes:
        module: Any = base.modules[change.layers[0]]
        up, down, alpha = change.delta.up.float(), change.delta.down.float(), change.delta.scale  # type: ignore[attr-defined]
        weight = before[module] = module.weight.data
        product = (up @ down.flatten(1)).reshape(weight.shape)
        module.weight.data = (weight.float() + product * (alpha * WEIGHT)).to(weight.dtype)
    found = output(base.pipe.unet, size)
    for module, weight in before.items():
        module.weight.data = weight
    return found


@dataclass
class Way:
    """One way to have another adapter in effect, and back to none."""

    name: str
    switch: Callable[[int], None]
    leave: Callable[[], None]
    seconds: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    error: float = 0.0


def ways(base: Base, shelf: AdapterShelf, uses: list[AdapterUse]) -> Iterator[Way]:
    """Ours, from memory and from the file, and diffusers'."""
    patcher, slots, pipe = Patcher(base.modules), Slots(base.modules, "unet", in_a_row=()), base.pipe
    colder = AdapterShelf(base)

    def stack(number: int, *, cold: bool) -> list[Strength]:
        colder.forget()
        return [Strength((colder if cold else shelf).get(uses[number]), WEIGHT, WEIGHT)]

    for cold, where in ((False, "from memory"), (True, "from the file")):
        yield Way(
            f"merged, {where}", lambda number, cold=cold: void(patcher.apply(stack(number, cold=cold))), patcher.restore
        )
        yield Way(f"in slots, {where}", lambda number, cold=cold: slots.apply([stack(number, cold=cold)]), slots.forget)
    if importlib.util.find_spec("peft") is None:
        print("peft is not installed: diffusers is not measured", file=sys.stderr)
        return

    def reload(number: int) -> None:
        pipe.unload_lora_weights()
        pipe.load_lora_weights(uses[number].path, adapter_name="one")
        pipe.set_adapters(["one"], [WEIGHT])

    yield Way("diffusers: `unload_lora_weights`, `load_lora_weights`", reload, pipe.unload_lora_weights)


def void(_value: object) -> None:
    """For what is called for its effect."""


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, which others that use it do not change much, and what came of it."""
    gc.collect()
    began = time.process_time()
    found = action()
    return time.process_time() - began, found


def measure(size: Size, rank: int, rounds: int) -> str:
    """The rows of one UNet."""
    unet = make_unet(size)
    base = make_base(size.name, size.name, pipeline_around(size, unet), {})
    with tempfile.TemporaryDirectory() as folder:
        uses = []
        for number in range(FILES):
            path = Path(folder) / f"{number}.safetensors"
            make_file(path, base, rank, number)
            uses.append(use_of(path, WEIGHT))
        shelf = AdapterShelf(base)
        plain = output(unet, size)
        wanted = [reference(base, shelf, use, size) for use in uses]
        bare = [timed(lambda: output(unet, size))[0] for _ in range(rounds)]
        effect = max(float((one - plain).norm() / one.norm()) for one in wanted)
        rows = []
        for way in ways(base, shelf, uses):
            for turn in range(rounds + 1):
                seconds, _ = timed(lambda way=way, turn=turn: way.switch(turn % FILES))
                step, found = timed(lambda: output(unet, size))
                off = float((found - wanted[turn % FILES]).norm() / wanted[turn % FILES].norm())
                way.error = max(way.error, off)
                if turn:  # the first time memory is taken
                    way.seconds.append(seconds)
                    way.steps.append(step)
            way.leave()
            bare.append(timed(lambda: output(unet, size))[0])
            rows.append(way)
        if not torch.equal(output(unet, size), plain):
            raise SystemExit(f"{size.shown}: the UNet is not what it was")
    return "\n".join(row(size, way, statistics.median(bare), effect) for way in rows)


def row(size: Size, way: Way, bare: float, effect: float) -> str:
    """One line: the switch, the step behind it, and after how many steps another way has caught up."""
    seconds, step = statistics.median(way.seconds), statistics.median(way.steps)
    right = "✓" if way.error <= size.limit else "✗"
    return (
        f"| {size.shown} | {way.name} | {seconds * 1000:.0f} ms | {step * 1000:.0f} ms | {step / bare:.2f}× | "
        f"{right} {way.error:.0e} of {effect:.0e} |"
    )


HEAD = (
    "| | adapters | one switch | a step of 256×256, guided | beside one without adapters | output off by |\n"
    "|---|---|---|---|---|---|"
)


def main() -> int:
    """Prints the table; 1 if our output is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--only", choices=[size.name for size in SIZES])
    parser.add_argument("--write", action="store_true", help="paste the table into docs/promises.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    lines = [HEAD]
    for size in SIZES:
        if options.only not in (None, size.name):
            continue
        free = psutil.virtual_memory().available
        if free < size.needs:
            lines.append(
                f"| {size.shown} | left out: {size.needs / 2**30:.0f} GB are needed, {free / 2**30:.0f} free | | | | |"
            )
            continue
        lines.append(measure(size, options.rank, options.rounds))
        gc.collect()
    text = (
        "\n".join(lines)
        + f"\n\n(rank {options.rank}, {options.rounds} rounds, one thread, time of the processor; {pairs.machine()})"
    )
    print(text)
    if options.write:
        pairs.paste("switching-real", text)
    return int(any("✗" in line and "diffusers" not in line for line in text.splitlines()))


if __name__ == "__main__":
    sys.exit(main())
