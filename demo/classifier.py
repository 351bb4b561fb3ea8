"""The examiner: a small convolutional network that says what is in a picture. Trained on drawn pictures only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo import words
from demo.common import device, log, one_cycle, seed_everything
from demo.dataset import Pictures, examiner_scenes, scene_pictures
from demo.draw import Scene

SUBJECTS = words.SUBJECTS + words.WITHHELD_SUBJECTS
COLOURS = tuple(words.COLOURS)
HEADS = {
    "subject": SUBJECTS,
    "colour": COLOURS,
    "background": words.BACKGROUNDS,
    "position": words.POSITIONS,
    "ink": ("no", "yes"),
}
TRAINING, HELD_OUT = 14_000, 1_500


class Examiner(nn.Module):
    """Pictures [n, 3, 128, 128] in -1..1 to logits per head."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96, 128)
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            ]  # fmt: skip
            before = width
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(before * 16, len(classes)) for name, classes in HEADS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(functional.avg_pool2d(images, 2))
        pooled = functional.adaptive_avg_pool2d(features, 4).flatten(1)
        return {name: head(pooled) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Verdict:
    """What the examiner sees in one picture, and how sure it is of the subject."""

    subject: str
    colour: str
    background: str
    position: str
    ink: bool
    certainty: float


def to_images(pictures: Pictures) -> Tensor:
    """uint8 [n, 128, 128, 3] to float [n, 3, 128, 128] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).to(device())


def labels_of(scenes: list[Scene]) -> dict[str, Tensor]:
    """Class numbers per head."""
    return {
        name: torch.tensor([classes.index(_value(scene, name)) for scene in scenes], device=device())
        for name, classes in HEADS.items()
    }


def _value(scene: Scene, head: str) -> str:
    return ("yes" if scene.ink else "no") if head == "ink" else str(getattr(scene, head))


def _roughen(images: Tensor) -> Tensor:
    """Small shifts, blur, noise and brightness: generated pictures are never as clean as drawn ones."""
    images = torch.roll(images, torch.randint(-3, 4, (2,)).tolist(), dims=(2, 3))
    if torch.rand(()) < 0.5:
        images = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    noise = torch.randn_like(images) * torch.rand(len(images), 1, 1, 1, device=images.device) * 0.12
    return images * (0.9 + 0.2 * torch.rand(len(images), 1, 1, 1, device=images.device)) + noise


def _loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    total = sum(
        functional.cross_entropy(logits[n], labels[n], label_smoothing=0.02)
        for n in HEADS
        if n not in ("colour", "background")
    )
    for name in ("colour", "background"):  # pen and wash shows neither reliably: only coloured pictures count
        each = functional.cross_entropy(logits[name], labels[name], reduction="none", label_smoothing=0.02)
        total = total + (each * (labels["ink"] == 0)).mean()
    assert isinstance(total, Tensor)
    return total


def train(work: Path, total: int = 1800, batch: int = 64) -> Examiner:
    """Train once, or load."""
    path = work / "examiner.pt"
    examiner = Examiner().to(device())
    if path.exists():
        examiner.load_state_dict(torch.load(path, map_location=device(), weights_only=True))
        return examiner.eval()
    seed_everything(7)
    items = examiner_scenes(TRAINING, seed=8)
    drawn, labels = scene_pictures(work, "examiner", items), labels_of(items)
    examiner = Examiner().to(device()).train()
    optimizer = torch.optim.AdamW(examiner.parameters(), lr=3e-3, weight_decay=1e-2)
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, total, 4e-3)
        chosen = torch.randint(0, len(items), (batch,))
        with torch.autocast(device().type, torch.bfloat16):
            logits = examiner(_roughen(to_images(drawn[chosen.numpy()])))
        loss = _loss({k: v.float() for k, v in logits.items()}, {k: v[chosen.to(device())] for k, v in labels.items()})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            log(f"examiner step {step}/{total} loss {loss.item():.3f}")
    torch.save(examiner.state_dict(), path)
    return examiner.eval()


@torch.no_grad()
def judge(examiner: Examiner, pictures: Pictures) -> list[Verdict]:
    """One verdict per picture."""
    verdicts = []
    for start in range(0, len(pictures), 100):
        logits = examiner(to_images(pictures[start : start + 100]))
        best = {name: values.argmax(dim=1).tolist() for name, values in logits.items()}
        sure = logits["subject"].softmax(dim=1).amax(dim=1).tolist()
        for n, certainty in enumerate(sure):
            said = {name: HEADS[name][best[name][n]] for name in HEADS}
            verdicts.append(
                Verdict(
                    said["subject"],
                    said["colour"],
                    said["background"],
                    said["position"],
                    said["ink"] == "yes",
                    certainty,
                )
            )
    return verdicts


def accuracy_on_drawings(work: Path, examiner: Examiner) -> dict[str, float]:
    """Per head on drawings it was not trained on (fresh seeds); colours and backgrounds on coloured pictures only."""
    items = examiner_scenes(HELD_OUT, seed=9)
    verdicts = judge(examiner, scene_pictures(work, "examiner_held_out", items))
    pairs = list(zip(items, verdicts, strict=True))
    coloured = [(scene, verdict) for scene, verdict in pairs if not scene.ink]

    def share(some: list[tuple[Scene, Verdict]], name: str) -> float:
        return sum(getattr(scene, name) == getattr(verdict, name) for scene, verdict in some) / len(some)

    of_all = {name: share(pairs, name) for name in ("subject", "position", "ink")}
    return {**of_all, **{name: share(coloured, name) for name in ("colour", "background")}}
