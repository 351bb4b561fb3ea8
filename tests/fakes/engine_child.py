"""A worker without torch: the real protocol loop around an engine that paints one colour and misbehaves on demand.

Run as `python tests/fakes/engine_child.py`. What goes wrong is said by words in the prompt:

    fake:die     SIGKILL itself in the middle      fake:segv    die by a segmentation fault
    fake:hang    stop working, use no processor    fake:stop    SIGSTOP itself
    fake:spin    long past the deadline, busy      fake:deaf    never notices a cancel
    fake:garbage a line that is no message         fake:half    half a line, then exit
    fake:long    a line of 100 MB                  fake:exit    exit 0 without an answer
    fake:noise   print to fd 1 as a C library does fake:flood   5,000 progress lines
    fake:bug     raise ValueError                  fake:user    raise UserError
    fake:oom     out of memory                     fake:stranger answer a job it was not given
    fake:slow    0.05 s per step                   fake:slow=S  S seconds per step
    fake:warn    a warning in the outcome          fake:nan     no image for the first seed
    fake:late    its end is told after all others of its batch
    (of a training: in its `class_word`)
    fake:once    with any of these: only the first time (needs LORAVAULT_FAKE_STATE, a folder)

and at the start by LORAVAULT_FAKE: `version`, `protocol`, `mute` (no hello), `crash`, `noise` (prints before the
hello), `late` (0.3 s before it is ready). LORAVAULT_FAKE_STEP_S is the default time per step,
LORAVAULT_FAKE_DEADLINE_S the deadline, LORAVAULT_FAKE_TOGETHER how many pictures are drawn at once.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # for the other fakes, wherever this is run from

import loravault
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.imagefile import SUFFIXES, save_image
from loravault.engine.inscription import chunk_of
from loravault.engine.wish import Wish
from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec
from loravault.formats.grouping import mark_of
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage, Provenance, StepReport
from loravault.jobs import child, protocol
from tests.fakes.training import FakeTrainer

MODE = os.environ.get("LORAVAULT_FAKE", "")
STEP_S = float(os.environ.get("LORAVAULT_FAKE_STEP_S", "0"))
DEADLINE_S = float(os.environ.get("LORAVAULT_FAKE_DEADLINE_S", "60"))
CARDS = int(os.environ.get("LORAVAULT_FAKE_CARDS", "0"))
TOGETHER = int(os.environ.get("LORAVAULT_FAKE_TOGETHER", "4"))


class FakeEngine(FakeTrainer):
    """Makes small real image files of one colour that depends on prompt, seed and adapters."""

    def __init__(self, channel_write: Callable[[bytes], None]) -> None:
        self._write = channel_write
        if MODE == "late":
            time.sleep(0.3)

    def device_name(self) -> str:
        return "cuda (Fake)" if self.cards() else "fake"

    def cards(self) -> int:
        """As torch counts them: only those that may be seen."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        return CARDS if seen is None else min(CARDS, len(seen.split(",")))

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}

    def pictures_at_once(self, spec: GenerationSpec) -> int:
        return TOGETHER

    def expect(self, specs: Sequence[GenerationSpec]) -> None:
        pass

    def mark_of(self, spec: GenerationSpec) -> Hashable:
        return mark_of(spec)

    def generate_together(self, wishes: Sequence[Wish]) -> None:
        """All of them take their steps in turn; what one does to itself is not felt by the others."""
        drawings = [(wish, self._drawing(wish)) for wish in wishes]
        late: list[tuple[Wish, GenerationOutcome | Exception]] = []
        while drawings:
            for wish, drawing in list(drawings):
                end: GenerationOutcome | Exception | None = None
                try:
                    next(drawing)
                except StopIteration as stop:
                    end = stop.value
                except Exception as error:
                    end = error
                if end is not None:
                    drawings.remove((wish, drawing))
                    if "fake:late" in wish.spec.prompt:
                        late.append((wish, end))
                    else:
                        wish.on_end(end)
        for wish, end in late:
            wish.on_end(end)

    def _drawing(self, wish: Wish) -> Generator[None, None, GenerationOutcome]:
        spec = wish.spec
        began = time.perf_counter()
        modes = self._modes(spec.prompt)
        wish.on_phase("load", DEADLINE_S)
        if "user" in modes:
            raise UserError("The fake engine was told to refuse this.")
        if "oom" in modes:
            raise OutOfMemory("The device has too little memory for 64×64.")
        if "bug" in modes:
            raise ValueError("a fake bug\nin two lines")
        wish.on_phase("draw", DEADLINE_S)
        images: list[MadeImage] = []
        for index, seed in enumerate(spec.seeds):
            for step in range(1, spec.steps + 1):
                if wish.cancelled() and "deaf" not in modes:
                    raise Stopped(tuple(images))
                time.sleep(modes.get("slow", STEP_S))
                if step * 2 >= spec.steps:
                    self._misbehave(modes, wish.provenance.job)
                report = StepReport(
                    image=index, batch=1, images=len(spec.seeds), step=step, steps=spec.steps, deadline_s=DEADLINE_S
                )
                wish.on_step(report)
                yield
            if index == 0 and "nan" in modes:
                continue
            name = f"{wish.stem}-{index + 1}"
            path = wish.out_dir / f"{name}.{SUFFIXES[spec.image_format]}"
            self._paint(spec, seed, path, index, wish.provenance)
            if wish.originals is not None:
                self._paint(spec, seed, wish.originals / f"{name}.png", index, wish.provenance)
            images.append(MadeImage(path=str(path), index=index, seed=seed, width=spec.width, height=spec.height))
        if not images:
            raise UserError("Every image came out as NaN.")
        warnings = [*(["A fake warning."] if "warn" in modes else []), *(["Image 1 is NaN."] if "nan" in modes else [])]
        return GenerationOutcome(
            images=tuple(images),
            warnings=tuple(warnings),
            seconds=time.perf_counter() - began,
            adapter_hashes=tuple(
                AdapterHashes(name=use.name, weight_id=use.weight_id, sha256="0" * 64, autov2="0" * 10, autov3="0" * 12)
                for use in spec.adapters
            ),
        )

    def _modes(self, prompt: str) -> dict[str, float]:
        modes = {word: float(value or 0.05) for word, value in re.findall(r"fake:(\w+)(?:=([\d.]+))?", prompt)}
        if modes.pop("once", None) and modes:
            marker = Path(os.environ["LORAVAULT_FAKE_STATE"]) / ("fake-" + "-".join(sorted(modes)))
            if marker.exists():
                return {}
            marker.touch()
        return modes

    def _misbehave(self, modes: dict[str, float], job: str) -> None:
        for mode in modes:
            action = getattr(self, f"_do_{mode}", None)
            if action is not None:
                action(job)
        modes.pop("spin", None)

    def _do_die(self, job: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _do_segv(self, job: str) -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)

    def _do_stop(self, job: str) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _do_hang(self, job: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)

    def _do_spin(self, job: str) -> None:
        end = time.perf_counter() + 12 * DEADLINE_S
        while time.perf_counter() < end:
            pass

    def _do_garbage(self, job: str) -> None:
        self._write(b"loading\x00\xff weights ...\n")

    def _do_half(self, job: str) -> None:
        self._write(b'{"type":"progress","job"')
        os._exit(0)

    def _do_long(self, job: str) -> None:
        for _ in range(100):
            self._write(b"x" * 1_000_000)

    def _do_exit(self, job: str) -> None:
        os._exit(0)

    def _do_noise(self, job: str) -> None:
        ctypes.CDLL(None).puts(b"OMP: Info #1: noise of a C library")
        os.write(1, b"more noise on fd 1\n")

    def _do_flood(self, job: str) -> None:
        line = protocol.Progress(job=job, image=0, batch=1, images=1, step=1, steps=2, deadline_s=60)
        for _ in range(50):
            self._write(protocol.encode(line) * 100)

    def _do_stranger(self, job: str) -> None:
        self._write(protocol.encode(protocol.Done("somebody-else", GenerationOutcome(images=()))))

    def _paint(self, spec: GenerationSpec, seed: int, path: Path, index: int, provenance: Provenance) -> None:
        from PIL import Image

        colour = (seed * 37 % 256, len(spec.prompt) * 11 % 256, len(spec.adapters) * 80 % 256)
        image = Image.new("RGB", (spec.width, spec.height), colour)
        image.putpixel((0, 0), (255, 255, 255))
        chunk = chunk_of(spec, index, provenance, {"fake": "1"})
        text = f"{spec.prompt}\nSteps: {spec.steps}, Seed: {seed}, Size: {spec.width}x{spec.height}"
        image_format = "png" if path.suffix == ".png" else spec.image_format
        save_image(image, path, image_format=image_format, infotext=text, chunk=chunk)


def main() -> None:
    """The real worker with the fake engine."""
    if MODE == "crash":
        sys.exit("ImportError: no module named torch")
    if MODE == "mute":
        time.sleep(3600)
    if MODE == "noise":
        print("a site hook greets you", flush=True)
    if MODE == "version":
        child.__dict__["__version__"] = "0.0.0-other"
    if MODE == "protocol":
        child.__dict__["PROTOCOL"] = protocol.PROTOCOL + 1
    channels: list[child.Channel] = []
    make_channel = child.Channel

    def remember() -> child.Channel:
        channels.append(make_channel())
        return channels[0]

    child.__dict__["Channel"] = remember
    child.main(lambda: FakeEngine(channels[0].write))


if __name__ == "__main__":
    assert loravault.__version__
    main()
