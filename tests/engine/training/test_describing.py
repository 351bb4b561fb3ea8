"""Pictures that nobody wrote anything under: what a captioner says of them, and what is learned of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from loravault.dataset.captioner import read_captioner
from loravault.engine.devices import choose_device
from loravault.engine.training import describing
from loravault.engine.training.describing import Teller
from loravault.formats.generation import BaseRef
from loravault.formats.safetensors_header import read_header
from loravault.formats.training import TrainingOutcome
from tests.engine.training.described import asked
from tests.engine.training.lessons import Lesson, spec_of
from tests.tiny_captioners import WORDS, make_blip, make_encoder_decoder
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


MAKERS = {"blip": make_blip, "encoder-decoder": make_encoder_decoder}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("describing") / "sd15", "sd15")


def captions(outcome: TrainingOutcome) -> list[dict[str, int]]:
    """What was learned from, as the file tells it: tags of the subject, then of its class."""
    told = json.loads(read_header(Path(outcome.checkpoints[-1].path)).metadata["ss_tag_frequency"])
    return list(told.values())


# ---- what is said


@pytest.mark.parametrize("kind", MAKERS)
def test_a_picture_is_described_in_words_the_same_each_time(tmp_path: Path, kind: str) -> None:
    """Both kinds of models, loaded twice; another picture gets other words, so it is the picture that is described."""
    folder = MAKERS[kind](tmp_path / kind)
    pictures = [Image.new("RGB", size, colour) for size, colour in (((90, 40), "red"), ((50, 70), "white"))]
    pictures.append(Image.effect_noise((64, 64), 90).convert("RGB"))
    tellers = [Teller(read_captioner(folder), choose_device("cpu")) for _ in range(2)]
    first, second = ([teller.say(one) for one in pictures] for teller in tellers)
    assert first == second
    assert len(set(first)) > 1
    assert all(set(text.split()) <= set(WORDS) for text in first)
    assert all(text for text in first)


@pytest.mark.parametrize(
    ("kind", "mean", "spread", "way"),
    [
        ("blip", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), Image.Resampling.BICUBIC),
        ("encoder-decoder", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Image.Resampling.BILINEAR),
    ],
)
def test_pictures_are_prepared_as_the_folder_says(
    tmp_path: Path, kind: str, mean: tuple[float, ...], spread: tuple[float, ...], way: Image.Resampling
) -> None:
    """Reckoned by hand; without the package torchvision."""
    image = Image.effect_noise((90, 50), 80).convert("RGB")
    teller = Teller(read_captioner(MAKERS[kind](tmp_path / kind)), choose_device("cpu"))
    [found] = teller._processor(images=image, return_tensors="pt")["pixel_values"]
    expected = (np.asarray(image.resize((32, 32), way), dtype=np.float32) / 255 - np.array(mean)) / np.array(spread)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_a_photo_that_lies_is_described_upright(tmp_path: Path, blip: Path) -> None:
    """As it is learned: turned by what its camera wrote."""
    upright = Image.effect_noise((64, 40), 120).convert("RGB")
    upright.paste("red", (0, 0, 30, 12))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    shown = []
    for name in ("upright.png", "lying.png"):
        path = tmp_path / name
        found = describing._picture(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
        assert found is not None
        shown.append(found)
    assert shown[0].tobytes() == shown[1].tobytes()
    teller = Teller(read_captioner(blip), choose_device("cpu"))
    assert teller.say(shown[0]) == teller.say(shown[1])


@pytest.mark.parametrize("kind", MAKERS)
def test_no_code_in_the_folder_is_run(tmp_path: Path, kind: str) -> None:
    """Wherever the libraries look for some: model, tokenizer, preparing, generating."""
    folder, mark = MAKERS[kind](tmp_path / kind), tmp_path / "was-run"
    code = f"open({str(mark)!r}, 'w').close()\nclass Evil:\n    pass\ndef generate(*a, **b):\n    pass\n"
    (folder / "evil.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    parts = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        told = json.loads((folder / name).read_text())
        told["auto_map"] = {**parts, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (folder / name).write_text(json.dumps(told))
    with contextlib.suppress(ValueError):  # it may be refused for it
        Teller(read_captioner(folder), choose_device("cpu")).say(Image.new("RGB", (64, 64), "red"))
    assert not mark.exists()


def test_the_layout_of_older_models_is_read_too(tmp_path: Path) -> None:
    """How to generate stands in the configuration itself, and buffers that are made anew now are among the weights."""
    folder = make_encoder_decoder(tmp_path / "model")
    image = Image.new("RGB", (64, 64), "red")
    said = Teller(read_captioner(folder), choose_device("cpu")).say(image)
    (folder / "generation_config.json").unlink()
    told = json.loads((folder / "config.json").read_text())
    told |= {"decoder_start_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "max_length": 16, "num_beams": 4}
    (folder / "config.json").write_text(json.dumps(told))
    tensors = load_file(folder / "model.safetensors")
    tensors |= {f"decoder.transformer.h.{n}.attn.bias": torch.ones(1, 1, 64, 64) for n in range(2)}
    tensors = {name: one for name, one in tensors.items() if ".pooler." not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert Teller(read_captioner(folder), choose_device("cpu")).say(image) == said


def test_a_picture_that_was_changed_meanwhile_is_not_described_as_what_it_was(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert describing._picture(str(tmp_path / "a.png"), "0" * 64) is None
    assert describing._picture(str(tmp_path / "gone.png"), "0" * 64) is None


# ---- in a training


def test_pictures_without_a_caption_are_learned_with_what_is_said_of_them(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    """And only those: one that has a caption keeps it, an empty one too. It is told before anything is trained."""
    lesson = Lesson(asked(tmp_path, base, blip, validation=0), tmp_path / "out")
    outcome = lesson.run()
    assert lesson.phases[:5] == ["survey", *["captions"] * 4]
    assert lesson.phases[5] == "load", "it is over before the base is loaded"
    told = lesson.prepared[0].described
    assert told is not None
    assert (told.by, told.count, told.usable) == ("tiny-blip", 3, 5)
    assert told.captions == tuple(zip(("2.png", "3.png", "4.png"), said, strict=True))
    assert captions(outcome) == [{"sks": 5, "a red dot": 1, **dict.fromkeys(said, 1)}]
    assert outcome.warnings == ()
    assert not any("Without a caption: 2.png" in one for one in outcome.prepared.plan.warnings)
    assert any("Without a caption: 1.png." in one for one in outcome.prepared.plan.warnings)


def test_without_a_captioner_nothing_is_different(base: BaseRef, tmp_path: Path, said: list[str]) -> None:
    spec = asked(tmp_path, base, None)
    lesson = Lesson(spec, tmp_path / "out")
    outcome = lesson.run()
    assert said == []
    assert "captions" not in lesson.phases
    assert lesson.prepared[0].described is None
    assert not (tmp_path / "cache" / "captions").exists()
    assert not (tmp_path / "state" / "captions.json").exists()
    assert any("Without a caption: 1.png, 2.png" in one for one in outcome.prepared.plan.warnings)


def test_where_every_picture_has_a_caption_no_captioner_is_looked_for(base: BaseRef, tmp_path: Path) -> None:
    spec = dataclasses.replace(spec_of(tmp_path, base), captioner=str(tmp_path / "gone"))
    lesson = Lesson(spec, tmp_path / "out")
    assert lesson.run().warnings == ()
    assert "captions" not in lesson.phases


def test_pictures_of_the_class_are_described_too_and_without_the_trigger(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    spec = asked(tmp_path, base, blip, validation=0)
    *rest, last = spec.pictures
    spec = dataclasses.replace(spec, pictures=(*rest, dataclasses.replace(last, regularisation=True)))
    subject, others = captions(Lesson(spec, tmp_path / "out").run())
    assert subject == {"sks": 4, "a red dot": 1, said[0]: 1, said[1]: 1}
    assert others == {said[2]: 1}


def test_the_second_training_of_the_same_pictures_loads_nothing(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lesson(asked(tmp_path, base, blip, steps=2), tmp_path / "out").run()
    monkeypatch.setattr(describing, "Teller", lambda *_: pytest.fail("it was loaded again"))
    other = dataclasses.replace(asked(tmp_path, base, blip, steps=2), name="other", state_dir=str(tmp_path / "state2"))
    monkeypatch.setattr(describing, "TOLD", 2)
    lesson = Lesson(other, tmp_path / "out2")
    assert captions(lesson.run()) == captions(first)
    assert "captions" not in lesson.phases
    assert len(said) == 3
    told = lesson.prepared[0].described
    assert told is not None
    assert (told.count, [text for _, text in told.captions]) == (3, said[:2]), "of many the first are told"


def test_two_files_of_one_picture_are_described_once(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    spec = asked(tmp_path, base, blip)
    shutil.copyfile(spec.pictures[3].path, spec.pictures[4].path)
    lesson = Lesson(spec, tmp_path / "out")
    lesson.run()
    told = lesson.prepared[0].described
    assert told is not None
    assert told.count == 3
    assert told.captions[1][1] == told.captions[2][1]
    assert len(said) == 2
