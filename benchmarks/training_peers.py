"""diffusers' and kohya's own training scripts on a small base: what a run of so many steps costs.

They run from checkouts outside of the repository, named by variables, with a Python that has what they need:

    LORAVAULT_DIFFUSERS=DIR [LORAVAULT_DIFFUSERS_PYTHON=PYTHON]       huggingface/diffusers
    LORAVAULT_SD_SCRIPTS=DIR [LORAVAULT_SD_SCRIPTS_PYTHON=PYTHON]     kohya-ss/sd-scripts

Both import torchvision, whose CUDA build stops at once beside a CPU build of torch because operators that no training
uses are not there: those are declared first. kohya's UNet has the widths of SD 1.5 written into it: they are replaced.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from loravault.resources import base_parts

#: What both scripts and we are told. Rank and alpha, side of the pictures, learning rate.
RANK, SIDE, RATE = 8, 256, 1e-4

_OPERATORS = """
import torch
_kept = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _kept.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

_KOHYA = """
import json, runpy, sys
root, base = sys.argv[1:3]
sys.path.insert(0, root)
widths = json.load(open(base + "/unet/config.json"))["block_out_channels"]
import library.original_unet as unet
unet.BLOCK_OUT_CHANNELS = tuple(widths)
unet.TIMESTEP_INPUT_DIM, unet.TIME_EMBED_DIM = widths[0], widths[0] * 4
sys.argv = ["train_network.py", "--pretrained_model_name_or_path", base, *sys.argv[3:]]
runpy.run_path(root + "/train_network.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Cost:
    """One run of a process."""

    #: Seconds of the processor.
    processor: float
    #: Seconds on the clock until the first step was made.
    first: float
    #: The most memory it had resident.
    peak_bytes: int


@dataclass(frozen=True)
class Peer:
    """A training script that is there."""

    name: str
    checkout: Path
    python: str

    def run(self, base: Path, data: Path, home: Path, steps: int) -> Cost:
        """Trains the attention of the UNet (kohya: with its feed-forward layers) for so many steps of one picture."""
        home.mkdir(parents=True, exist_ok=True)
        shim = home / "shim"
        shim.mkdir(exist_ok=True)
        (shim / "sitecustomize.py").write_text(_OPERATORS)
        command = self._diffusers(base, data, home, steps) if self.name == "diffusers" else []
        command = command or self._kohya(base, data, home, steps)
        return measured([self.python, *command], home, shim, steps=steps)

    def _diffusers(self, base: Path, data: Path, home: Path, steps: int) -> list[str]:
        script = self.checkout / "examples/text_to_image/train_text_to_image_lora.py"
        told = {
            "pretrained_model_name_or_path": base,
            "train_data_dir": data / "plain",
            "caption_column": "text",
            "resolution": SIDE,
            "train_batch_size": 1,
            "max_train_steps": steps,
            "learning_rate": RATE,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "seed": 0,
            "rank": RANK,
            "output_dir": home / "out",
            "report_to": "tensorboard",
        }
        return [str(script), *_options(told)]

    def _kohya(self, base: Path, data: Path, home: Path, steps: int) -> list[str]:
        launcher, tokenizer = home / "launch.py", home / "tokenizers" / "openai_clip-vit-large-patch14"
        launcher.write_text(_KOHYA)
        tokenizer.mkdir(parents=True, exist_ok=True)
        for file in (base_parts() / "tokenizers" / "clip").iterdir():  # in two files, as its older library reads it
            (tokenizer / file.name).write_bytes(file.read_bytes())
        told = {
            "tokenizer_cache_dir": tokenizer.parent,
            "train_data_dir": data / "kohya",
            "resolution": f"{SIDE},{SIDE}",
            "caption_extension": ".txt",
            "output_dir": home / "out",
            "output_name": "kohya",
            "network_module": "networks.lora",
            "network_dim": RANK,
            "network_alpha": RANK,
            "unet_lr": RATE,
            "optimizer_type": "AdamW",
            "max_train_steps": steps,
            "mixed_precision": "no",
            "max_data_loader_n_workers": 0,
            "seed": 0,
        }
        switches = ["--network_train_unet_only", "--sdpa", "--cache_latents"]
        return [str(launcher), str(self.checkout), str(base), *_options(told), *switches]


def _options(told: dict[str, object]) -> list[str]:
    return [word for name, value in told.items() for word in (f"--{name}", str(value))]


def measured(command: list[str], home: Path, *paths: Path, steps: int = 0) -> Cost:
    """Runs it on one core with one thread; SystemExit with its last words if it fails.

    The first step was made when `1/<steps>` is in what it prints, as in the bar of every script.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    log, first, mark = home / "log.txt", 0.0, re.compile(rf"\b1/{steps}\b".encode())
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=subprocess.STDOUT)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        while not ended:
            time.sleep(0.02)
            if not first and mark.search(log.read_bytes()):
                first = time.perf_counter() - began
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
    if status:
        last = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
        raise SystemExit(f"{Path(command[1]).name} failed: {last[-600:]}")
    return Cost(used.ru_utime + used.ru_stime, first, _peak(used))


def _peak(used: resource.struct_rusage) -> int:
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peers() -> tuple[list[Peer], list[str]]:
    """Those that are there, and why the others are not."""
    found, absent = [], []
    for name, variable, script in (
        ("diffusers", "LORAVAULT_DIFFUSERS", "examples/text_to_image/train_text_to_image_lora.py"),
        ("kohya sd-scripts", "LORAVAULT_SD_SCRIPTS", "train_network.py"),
    ):
        named = os.environ.get(variable)
        if named is None:
            absent.append(f"{name} was not run: {variable} names no checkout of it.")
        elif not (Path(named) / script).is_file():
            absent.append(f"{name} was not run: {variable} names a folder without {script}.")
        else:
            found.append(Peer(name, Path(named).resolve(), os.environ.get(f"{variable}_PYTHON", sys.executable)))
    return found, absent


def make_data(folder: Path, count: int = 20) -> None:
    """`plain/` with a metadata.jsonl as diffusers wants it, `kohya/2_zkx/` with captions beside: the same pictures."""
    import random  # noqa: PLC0415 - only here

    from PIL import Image, ImageDraw  # noqa: PLC0415

    chance = random.Random(1)
    plain, kohya = folder / "plain", folder / "kohya" / "2_zkx"
    plain.mkdir(parents=True)
    kohya.mkdir(parents=True)
    rows = []
    for number in range(count):
        image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(256) for _ in range(3)))
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, side = chance.randrange(SIDE), chance.randrange(SIDE), chance.randrange(20, 90)
            draw.ellipse((x, y, x + side, y + side), fill=tuple(chance.randrange(256) for _ in range(3)))
        caption = f"a zkx drawing number {number} with circles"
        for into in (plain, kohya):
            image.save(into / f"{number:02}.png")
        (kohya / f"{number:02}.txt").write_text(caption)
        rows.append(json.dumps({"file_name": f"{number:02}.png", "text": caption}))
    (plain / "metadata.jsonl").write_text("\n".join(rows))
