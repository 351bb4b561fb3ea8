"""What comes out of a training, and whether it survives being killed.

Two adapters are trained on the demo base as a request without any number would train them: a subject and a style that
the base was never shown, from twenty pictures that the demo's code draws. The demo's examiner, which has seen neither
adapters nor the base, says in how many pictures it finds them, with the trigger and without. The pictures lie side by
side in a contact sheet. Then a training of a tiny base is killed at random moments until it is done, and compared bit
for bit with one that was left alone.

    python -m benchmarks.training [--kills 20] [--pictures 60] [--only subject style kills] [--sheet FILE] [--write]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks import pairs
from demo import captions, classifier, evaluate, words
from demo.common import BASE, WORK
from demo.dataset import Pictures, held_out_scenes
from demo.draw import draw_array, random_scene
from demo.recipes import INK, NEWCOMER, Recipe, training_scenes
from demo.train_adapter import load_base, merge
from loravault.engine.devices import choose_device
from loravault.engine.training.trainer import train
from loravault.formats.generation import BaseRef
from loravault.formats.outcome import GenerationOutcome
from loravault.formats.training import TrainingOutcome, TrainingPicture, TrainingSpec
from tests.engine.training.lessons import Lesson, same, spec_of
from tests.tiny_families import make_family

#: Pictures to learn from, and on one row of the sheet.
SHOWN, ROW = 20, 10
FOUND, LEAKED = 0.8, 0.1
HEAD = (
    "| | trained in | with its trigger (≥ 80 %) | without (≤ 10 %) | colour | background | other prompts, before → "
    "with it |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Learned:
    """What the examiner found."""

    what: str
    outcome: TrainingOutcome
    with_trigger: float
    without: float
    colour: float
    background: float
    before: float
    after: float
    asked: Pictures
    others: Pictures

    @property
    def kept(self) -> bool:
        """Whether both promises are."""
        return self.with_trigger >= FOUND and self.without <= LEAKED

    def row(self) -> str:
        """As markdown."""
        plan = self.outcome.prepared.plan
        return (
            f"| {self.what}, {SHOWN} pictures, {plan.steps:,} steps of {plan.batch} | {self.outcome.seconds:.0f} s | "
            f"{self.with_trigger:.0%} {'✓' if self.with_trigger >= FOUND else '✗'} | "
            f"{self.without:.0%} {'✓' if self.without <= LEAKED else '✗'} | {self.colour:.0%} | "
            f"{self.background:.0%} | {self.before:.0%} → {self.after:.0%} |"
        )


def drawn(folder: Path, recipe: Recipe) -> tuple[TrainingPicture, ...]:
    """Twenty pictures of the recipe's subject or style, as files with captions."""
    folder.mkdir(parents=True)
    found = []
    for number, scene in enumerate(training_scenes(replace(recipe, pictures=SHOWN))):
        path = folder / f"{number:02}.png"
        Image.fromarray(draw_array(scene)).save(path)
        found.append(TrainingPicture(path=str(path), name=path.name, caption=recipe.caption(scene)))
    return tuple(found)


def learn(folder: Path, recipe: Recipe) -> TrainingOutcome:
    """Trained as a request that names nothing but the pictures, the trigger and the kind."""
    spec = TrainingSpec(
        base=BaseRef(name="demo", path=str(BASE), family="demo"),
        name=recipe.name,
        subject="style" if recipe.subject is None else "character",
        trigger=recipe.trigger,
        pictures=drawn(folder / "pictures", recipe),
        state_dir=str(folder / "state"),
        cache_dir=str(folder / "cache"),
    )
    told = [0.0]

    def nothing(*_given: object) -> GenerationOutcome:
        return GenerationOutcome(images=())

    def on_step(step: object) -> None:
        if time.monotonic() - told[0] > 15:
            told[0] = time.monotonic()
            print(step, file=sys.stderr, flush=True)

    return train(
        spec, folder / "out", device=choose_device("cpu"), on_phase=lambda _n, _d: None, on_prepared=lambda _p: None,
        on_step=on_step, cancelled=lambda: False, paused=lambda: False, generate=nothing,
    )  # fmt: skip


def judged(recipe: Recipe, outcome: TrainingOutcome, count: int) -> Learned:
    """What the base draws before, and with the adapter merged at full strength."""
    examiner = classifier.train(WORK)
    pipe, base = load_base(BASE)
    evaluate.use_sampler(evaluate.quick(pipe), "DPM++ 2M Karras")
    rng = random.Random(recipe.seed + 1000)
    wanted = [random_scene(rng, (recipe.subject,) if recipe.subject else words.SUBJECTS) for _ in range(count)]
    others = held_out_scenes(count, 500)
    plain = [captions.full(scene) for scene in others]
    before = classifier.judge(examiner, evaluate.generate(pipe, plain, seed=900))
    merge(base, load_file(outcome.checkpoints[-1].path))
    made = evaluate.generate(pipe, plain, seed=900)
    asked = evaluate.generate(pipe, [recipe.caption(scene) for scene in wanted], seed=700)
    after, found = classifier.judge(examiner, made), classifier.judge(examiner, asked)

    def share(verdicts: list[classifier.Verdict]) -> float:
        return sum(one.subject == recipe.subject if recipe.subject else one.ink for one in verdicts) / len(verdicts)

    scores = evaluate.score(wanted, found)
    return Learned(
        what="a style" if recipe.subject is None else f"a {recipe.subject}",
        outcome=outcome,
        with_trigger=share(list(found)),
        without=share(list(after)),
        colour=scores.colour,
        background=scores.background,
        before=evaluate.score(others, before).subject,
        after=evaluate.score(others, after).subject,
        asked=asked,
        others=made,
    )


def sheet(learned: list[Learned], path: Path) -> None:
    """For each: two rows with its trigger, one without."""
    parts = [part for one in learned for part in (one.asked[: 2 * ROW], one.others[:ROW])]
    pages = [evaluate.sheet(part, columns=ROW) for part in parts]
    whole = Image.new("RGB", (pages[0].width, sum(page.height for page in pages)), "white")
    top = 0
    for page in pages:
        whole.paste(page, (0, top))
        top += page.height
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, quality=88)


def killed(folder: Path, kills: int, seed: int = 5) -> tuple[int, bool]:
    """(kills, whether it came to the same): SIGKILL at a random moment of each life, the last one in peace."""
    steps = 20 * kills  # more than all lives together make
    base = make_family(folder / "base", "sd15")
    peace = Lesson(spec_of(folder / "peace", base, steps=steps, checkpoints=3), folder / "peace" / "out").run()
    draw, there = random.Random(seed), folder / "killed"
    command = [sys.executable, "-m", "tests.engine.training.lessons", str(there), str(steps), base.path]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = 0
    for _ in range(kills):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        assert child.stdout is not None
        lines = draw.randint(1, 8)
        for line in child.stdout:
            lines -= line.strip() in (b"train", b"cache", b"load")
            if lines <= 0:
                break
        time.sleep(draw.random() * 0.05)
        done += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    last = Lesson(spec_of(there, base, steps=steps, checkpoints=3), there / "out").run()
    return done, same(last, peace)


def main() -> int:
    """Prints the figures; 1 if one of them is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=60, help="that the examiner looks at, for each figure")
    parser.add_argument("--only", nargs="*", default=["subject", "style", "kills"])
    parser.add_argument("--sheet", type=Path, default=Path("training-contact-sheet.webp"))
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    good, said = True, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipes = {"subject": NEWCOMER, "style": INK}
        learned = [
            judged(recipe, learn(folder / kind, recipe), options.pictures)
            for kind, recipe in recipes.items()
            if kind in options.only
        ]
        if learned:
            sheet(learned, options.sheet)
            said += [
                HEAD,
                *(one.row() for one in learned),
                "",
                f"({options.pictures} pictures each; {pairs.machine()})",
            ]
            good = all(one.kept for one in learned)
        if "kills" in options.only:
            count, equal = killed(folder, options.kills)
            same_bits = "bit for bit the adapter of one left alone ✓" if equal else "another adapter ✗"
            said += ["", f"A training killed {count} times at random and gone on with each time came to {same_bits}."]
            good = good and equal and count == options.kills
    text = "\n".join(said)
    print(text)
    if options.write:
        pairs.paste("training", text)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
