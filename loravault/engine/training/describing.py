"""Captions for pictures that nobody wrote anything under, by a model of transformers that the person has.

It is a help and never a reason to fail: what goes wrong with it is a sentence, and the pictures stay without a caption.
It is loaded only for pictures that it has said nothing of before, and gone before the base is loaded.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from loravault.dataset.captioner import Captioner, name_of, read_captioner
from loravault.dataset.pictures import NotUsable, decode, read_bytes
from loravault.engine.bases.parts import refuse_missing, short, unmapped
from loravault.engine.devices import Device, free_cache, is_out_of_memory
from loravault.engine.training.said import NOT_THERE, Begun, Said
from loravault.engine.training.steps import Ears
from loravault.errors import UserError
from loravault.formats.training import Described, Survey, TrainingSpec

#: How long the loading of a model, or one picture on a slow processor, may be silent (seconds).
DEADLINE_S = 300.0
#: Of the search for the likeliest sentence. Nothing is drawn at random: the same picture gets the same words.
BEAMS, MOST_TOKENS = 3, 40
#: So many words in the same order are said once: small models get caught in loops.
NO_LOOP = 3
#: Characters that are kept of a caption, and captions that are told.
LONGEST, TOLD = 400, 30
#: Longer side in pixels of what a model is shown; models take 224 to 480.
_SIDE = 1024
#: Stands in the name of what is kept: changes whenever the same model would say something else.
_VERSION = 1


def describe(
    spec: TrainingSpec, seen: Survey, device: Device, *, ears: Ears, warn: Callable[[str], None]
) -> tuple[TrainingSpec, Described | None]:
    """The spec with a caption for every picture that had none, and what there is to tell of that.

    Pictures with a caption, an empty one too, stay as they are. `warn` is told what is wrong with the model. Raises
    what `ears.check` raises; what has been said by then is kept.
    """
    wanted = tuple(
        look.sha256 if picture.caption is None and look.problem is None else None
        for picture, look in zip(spec.pictures, seen.pictures, strict=True)
    )
    if spec.captioner is None or not any(wanted):
        return spec, None
    paths = {sha256: one.path for one, sha256 in zip(spec.pictures, wanted, strict=True) if sha256}
    found = _Work(spec, paths, device, ears, warn).captions()
    pictures = tuple(
        replace(one, caption=found[sha256] or None) if sha256 else one
        for one, sha256 in zip(spec.pictures, wanted, strict=True)
    )
    told = [(new.name, new.caption) for new, sha256 in zip(pictures, wanted, strict=True) if sha256 and new.caption]
    if not told:
        return spec, None
    described = Described(
        by=name_of(Path(spec.captioner)), count=len(told), usable=seen.usable, captions=tuple(told[:TOLD])
    )
    return replace(spec, pictures=pictures), described


@dataclass
class _Work:
    """The captions of one training."""

    spec: TrainingSpec
    #: SHA-256 of each picture that has none → where it is.
    paths: Mapping[str, str]
    device: Device
    ears: Ears
    warn: Callable[[str], None]

    def captions(self) -> dict[str, str]:
        """SHA-256 of each picture → what is said of it; empty where nothing is."""
        begun = Begun(Path(self.spec.state_dir))
        try:
            captioner = read_captioner(Path(self.spec.captioner or ""))
        except UserError as error:
            # What it began with is kept, also when the model's drive is unplugged meanwhile.
            found, problem = begun.read(None)[0], error.message
            if not found:
                begun.write(NOT_THERE, dict.fromkeys(self.paths, ""), problem)
        else:
            found, problem = self._goes_on_without(begun, captioner) or self._told(begun, captioner)
        if problem and not all(found.get(sha256) for sha256 in self.paths):
            self.warn(problem)
        return {sha256: found.get(sha256, "") for sha256 in self.paths}

    def _goes_on_without(self, begun: Begun, captioner: Captioner) -> tuple[dict[str, str], str] | None:
        """No captions and why, if something was learned without them and nobody asked since the model came back."""
        if self.spec.captioner_was_there or not (found := begun.read(NOT_THERE)[0]):
            return None
        return found, (
            f"The captioner “{captioner.name}” could not be used when this training began, so it goes on without "
            "captions of it: tick `run` again to begin anew with them."
        )

    def _told(self, begun: Begun, captioner: Captioner) -> tuple[dict[str, str], str]:
        """(captions, what went wrong), kept for the next time."""
        kept, problem = begun.read(captioner.signature)
        said = Said(Path(self.spec.cache_dir) / "captions" / f"{captioner.signature}-{_VERSION}.jsonl")
        found = {**said.read(), **kept}
        problem = self._rest(captioner, said, found) or problem
        begun.write(captioner.signature, {sha256: found.get(sha256, "") for sha256 in self.paths}, problem)
        return found, problem

    def _rest(self, captioner: Captioner, said: Said, found: dict[str, str]) -> str:
        """Adds to `found` what is not there yet. Returns what went wrong, in words; empty: nothing."""
        todo = [sha256 for sha256 in self.paths if sha256 not in found]
        if not todo:
            return ""
        self.ears.on_phase("captions", DEADLINE_S)
        try:
            self._all(captioner, said, found, todo)
        except UserError as error:
            return error.message
        finally:
            gc.collect()  # the parts of a model hold each other
            free_cache(self.device)
        return ""

    def _all(self, captioner: Captioner, said: Said, found: dict[str, str], todo: Sequence[str]) -> None:
        """Loads the model, which is unreachable on return."""
        with _words(captioner):
            teller = Teller(captioner, self.device)
        for sha256 in todo:
            self.ears.check()
            self.ears.on_phase("captions", DEADLINE_S)
            image = _picture(self.paths[sha256], sha256)
            if image is None:
                continue
            with _words(captioner):
                found[sha256] = teller.say(image)
            said.add(sha256, found[sha256])


class Teller:
    """A captioner in memory."""

    def __init__(self, captioner: Captioner, device: Device) -> None:
        """In 32 bits: it is small beside a base, and says the same everywhere. Raises whatever the libraries raise."""
        folder = str(captioner.folder)
        ours = {"local_files_only": True, "trust_remote_code": False}
        library: Any = transformers
        self._processor = library.AutoImageProcessor.from_pretrained(folder, **ours)
        self._tokenizer = library.AutoTokenizer.from_pretrained(folder, **ours)
        model, report = getattr(library, captioner.kind).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **ours
        )
        # Heads that a description does not come from are often not in the file.
        refuse_missing("file of weights", [key for key in report["missing_keys"] if ".pooler." not in key])
        self._model: Any = unmapped(model).eval().requires_grad_(False)
        self._place = device.place
        try:
            self._model.to(self._place)
        except Exception as error:
            self._retreat(error)

    def say(self, image: Image.Image) -> str:
        """What is seen on an RGB picture, in one line; empty if the model says nothing."""
        try:
            return self._said(image)
        except Exception as error:
            self._retreat(error)
        return self._said(image)

    @torch.inference_mode()
    def _said(self, image: Image.Image) -> str:
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"].to(self._place)
        tokens = self._model.generate(
            pixel_values=pixels, do_sample=False, num_beams=BEAMS, num_return_sequences=1, max_new_tokens=MOST_TOKENS,
            no_repeat_ngram_size=NO_LOOP,
        )  # fmt: skip
        # The first one says that a sentence begins; some tokenizers take it for a word.
        text = self._tokenizer.decode(tokens[0][1:], skip_special_tokens=True)
        return " ".join(str(text).split())[:LONGEST].strip()

    def _retreat(self, error: Exception) -> None:
        """To the processor, where a card has too little memory. Raises the error if it is about something else."""
        if self._place.type == "cpu" or not is_out_of_memory(error):
            raise error
        self._place = torch.device("cpu")
        self._model.to(self._place)


def _picture(path: str, sha256: str) -> Image.Image | None:
    """RGB, upright, as it was looked at; None if it is not that any more, which is told when it is encoded."""
    try:
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        found = decode(data, least=_SIDE)
        scale = min(1.0, _SIDE / max(found.image.size))
        size = max(1, round(found.image.width * scale)), max(1, round(found.image.height * scale))
        return found.cut(size, (0, 0), size).rgb()
    except (NotUsable, MemoryError):
        return None


@contextmanager
def _words(captioner: Captioner) -> Iterator[None]:
    """Turns whatever the libraries raise into a sentence."""
    name = captioner.name
    try:
        yield
    except UserError as error:
        raise UserError(f"The captioner “{name}” cannot be used: {error.message}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(f"There is too little memory for the captioner “{name}”: take a smaller one.") from error
        said = short(error) or type(error).__name__
        raise UserError(f"The captioner “{name}” cannot be used: {said.rstrip('.')}.") from error
