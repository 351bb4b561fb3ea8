"""What a training note comes to, and everything that can be wrong with one, in words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loravault.requests.model import Refusal
from loravault.requests.parse import parse_request
from loravault.requests.training import Places, ResolvedTraining, resolve_training
from loravault.requests.training_pictures import Found, embedded, folder_of, in_folder, merged
from loravault.vault.note import parse_note
from tests.fakes.captioner_folder import make_captioner
from tests.requests.catalog import DEMO, SD, Library

BODY = "![[cat1.jpg]]\nsks cat on a sofa\n\n![[Pets/cat2.jpg|300]]\n\n```prompt\na photo of sks cat on a beach\n```\n"


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    for name in ("cat1.jpg", "Pets/cat2.jpg", "Other/cat1.jpg", "x.svg"):
        path = tmp_path / "vault" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "vault"


def outcome(
    vault: Path, properties: str = "", body: str = BODY, *, name: str = "Notes/My cat.md", **more: Any
) -> ResolvedTraining | Refusal:
    note = parse_note(f"---\nloravault: train\ntrigger: sks cat\n{properties}\n---\n{body}".encode())
    request = parse_request(note)
    assert request is not None
    request = replace(request, problems=())
    places = Places(state=Path("/state/training"), cache=Path("/state/cache"), captioner=more.pop("captioner", None))
    return resolve_training(
        request,
        name,
        embedded(note, name, vault),
        more.pop("catalog", Library()),
        places=places,
        taken=more.pop("taken", {}),
    )


def resolved(vault: Path, properties: str = "", body: str = BODY, **more: Any) -> ResolvedTraining:
    found = outcome(vault, properties, body, **more)
    assert isinstance(found, ResolvedTraining), found.messages
    return found


def refused(vault: Path, properties: str = "", body: str = BODY, **more: Any) -> str:
    found = outcome(vault, properties, body, **more)
    assert isinstance(found, Refusal)
    return " ".join(found.messages)


def test_the_note_of_the_contract_is_understood(vault: Path) -> None:
    found = resolved(vault, "name: my-cat\nsubject: character\nsteps: auto\ncrops: false\n")
    spec = found.spec
    assert (spec.name, spec.subject, spec.trigger, spec.base) == ("my-cat", "character", "sks cat", DEMO)
    assert [(one.name, one.caption) for one in spec.pictures] == [("cat1.jpg", "sks cat on a sofa"), ("cat2.jpg", None)]
    assert [one.path for one in spec.pictures] == [str(vault / "cat1.jpg"), str(vault / "Pets/cat2.jpg")]
    assert (spec.wishes.steps, spec.wishes.crops) == (None, False)
    [sample] = spec.samples
    assert (sample.prompt, sample.seeds, sample.steps, sample.adapters) == (
        "a photo of sks cat on a beach",
        (42,),
        25,
        (),
    )
    assert found.category == "Characters"
    assert spec.state_dir.startswith("/state/training/my-cat-")
    assert found.warnings == ()


def test_every_property_of_a_training_is_read(vault: Path) -> None:
    wishes = resolved(
        vault,
        "steps: 700\nalgorithm: LoHa\nrank: 8\nalpha: 4\nconv_rank: 2\nconv_alpha: 1\nrslora: true\ndora: false\n"
        "factor: 4\nlr: 2e-4\nte_rate: 0\npivotal: 1\nresolution: 512, 768x1152\nbatch: 2\naccumulation: 3\n"
        "optimizer: Prodigy\nschedule: constant\nwarmup: 5\nmin_snr: 5\n"
        "noise_offset: 0.05\nprior_weight: 0.5\npreserve: 0.2\nclip: 1\n"
        "ema: 0.99\nprecision: bf16\nquantised: int8\ncheckpointing: yes\nflip: true\ncheckpoints: 2\nvalidation: 1\n"
        "caption_dropout: 0.1\ntag_dropout: 0.1\nshuffle: true\nkeep_tokens: 1\nclip_skip: 2\ncaption_prefix: anime\n"
        "seed: 7\nnaming: diffusers\ncrops: true\ngpus: all\n",
    ).spec.wishes
    assert (wishes.steps, wishes.algorithm, wishes.rank, wishes.alpha, wishes.resolutions) == (
        700,
        "loha",
        8,
        4,
        (512, 944),
    )
    assert (wishes.learning_rate, wishes.te_rate, wishes.optimizer, wishes.checkpointing) == (2e-4, 0, "prodigy", True)
    from dataclasses import fields

    assert all(getattr(wishes, one.name) is not None for one in fields(wishes))
    assert wishes.gpus == 0, "which stands for all"


@pytest.mark.parametrize("value", ["auto", "Auto", "", "~", "default"])
def test_what_is_auto_or_empty_is_left_to_us(vault: Path, value: str) -> None:
    found = resolved(vault, f"steps: {value}\nrank: {value}\nsubject: {value}\nbase: {value}\nname: {value}")
    assert (found.spec.wishes.steps, found.spec.wishes.rank, found.spec.subject) == (None, None, "character")
    assert found.spec.name == "My cat"


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ("steps: many", '"steps" is "many"'),
        ("algorithm: lorra", "lora, locon, loha"),
        ("resolution: 500", "multiples of 8; nearest: 496"),
        ("subject: animal", "character, style, object, concept"),
        ("base: nothing", 'no base "nothing"'),
        ("vae: nothing", 'no VAE "nothing"'),
        ("rslora: perhaps", "true or false"),
        ("seed: -1", "leave it empty"),
        ("algorithm: ia3\nconv_rank: 4", "no meaning for ia3"),
    ],
)
def test_a_property_that_cannot_be_is_said(vault: Path, properties: str, words: str) -> None:
    assert words in refused(vault, properties)


def test_all_that_is_wrong_is_said_at_once(vault: Path) -> None:
    said = refused(
        vault, "steps: 0\nrank: x", "![[gone.jpg]]\n![](https://x.org/a.jpg)\n\n```prompt\n<lora:zzz:1> a\n```\n"
    )
    for words in ('"steps" is 0', '"rank" is "x"', "gone.jpg", "https://x.org/a.jpg", 'The sample prompt "a"', "zzz"):
        assert words in said, words


def test_no_picture_is_said(vault: Path) -> None:
    assert "There is no picture to learn from" in refused(vault, body="nothing here\n")


def test_a_base_that_cannot_be_trained_is_refused(vault: Path) -> None:
    catalog = Library(bases=(replace(SD, name="wan", family="wan"),))
    assert 'cannot be trained on the base "wan"' in refused(vault, "base: wan", catalog=catalog)


def test_a_family_chooses_a_base(vault: Path) -> None:
    assert resolved(vault, "family: sd15").spec.base == SD


def test_training_steps_and_seed_do_not_reach_the_samples(vault: Path) -> None:
    [sample] = resolved(vault, "steps: 900\nseed: 3\ncfg: 4\nsize: 64x64\nnegative: blurry").spec.samples
    assert (sample.steps, sample.seeds, sample.cfg, sample.width, sample.negative) == (25, (42,), 4, 64, "blurry")


def test_the_adapter_itself_may_be_named_in_its_samples(vault: Path) -> None:
    body = BODY.replace("a photo of", "<lora:my-cat:1> a photo of")
    assert resolved(vault, "name: my-cat", body).spec.samples[0].adapters == ()


def test_without_a_block_something_is_drawn_all_the_same(vault: Path) -> None:
    spec = resolved(vault, body="![[cat1.jpg]]\nasleep <on> a sofa\n").spec
    assert [one.prompt for one in spec.samples] == ["sks cat, asleep (on) a sofa"]


def test_too_many_samples_are_refused(vault: Path) -> None:
    assert "at most 8" in refused(vault, body=BODY.replace("```prompt", "```prompt\n#| count: 9"))


def test_a_sample_in_a_list_is_fine_for_nothing_is_written_below_it(vault: Path) -> None:
    body = "![[cat1.jpg]]\n\n- ```prompt\n  sks cat\n  ```\n"
    assert [one.prompt for one in resolved(vault, body=body).spec.samples] == ["sks cat"]


def test_a_trigger_that_is_taken_or_everyday_is_told(vault: Path) -> None:
    said = " ".join(resolved(vault, taken={"sks_cat": ("other-cat",)}).warnings)
    assert "that of other-cat too" in said
    note = BODY.replace("sks cat", "cat")
    everyday = outcome(vault, "trigger_word: x", note.replace("trigger: sks cat", ""))
    assert isinstance(everyday, ResolvedTraining)
    known = Library(words=frozenset({"sks", "cat", "on", "a"}))
    told = " ".join(resolved(vault, catalog=known).warnings)
    assert "everyday word" in told
    assert "does not know: sofa (words of the captions)" in told


def test_samples_without_the_trigger_are_told(vault: Path) -> None:
    assert "unasked" in " ".join(resolved(vault, body=BODY.replace("of sks cat", "of a dog")).warnings)


def test_nearly_a_property_is_told_and_the_users_own_are_not(vault: Path) -> None:
    warnings = " ".join(resolved(vault, "learning_rat: 1e-4\nmood: fine\nstatus: x\ntags: [a]").warnings)
    assert "`learning_rat`" in warnings
    assert "mood" not in warnings
    assert "status" not in warnings


@pytest.mark.parametrize(
    ("category", "expected"),
    [("Pets/Cats", "Pets/Cats"), ("../../etc", "etc"), ("/", ""), ("a:b/c?", "a b/c"), (".hidden", "_hidden")],
)
def test_a_category_stays_below_the_loras_folder(vault: Path, category: str, expected: str) -> None:
    assert resolved(vault, f'category: "{category}"').category == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b", "a b"), ("../x", "_. x"), ("CON", "_CON"), ("猫 cat", "猫 cat")]
)
def test_a_name_is_one_a_file_can_have(vault: Path, name: str, expected: str) -> None:
    assert resolved(vault, f'name: "{name}"').spec.name == expected


def test_equal_notes_are_equal_and_each_change_makes_another(vault: Path) -> None:
    first = resolved(vault)
    assert resolved(vault, name="Elsewhere/My cat.md").fingerprint == first.fingerprint
    others = [
        resolved(vault, "rank: 9"),
        resolved(vault, body=BODY.replace("sofa", "chair")),
        resolved(vault, body=BODY.replace("beach", "moon")),
        resolved(vault, "name: x"),
        resolved(vault, "again: 2"),
        resolved(vault, "category: x"),
    ]
    (vault / "cat1.jpg").write_bytes(b"another picture")
    others.append(resolved(vault))
    assert len({first.fingerprint, *(one.fingerprint for one in others)}) == 8


def test_other_samples_go_on_from_the_same_state(vault: Path) -> None:
    """What is drawn does not change what is learned."""
    assert resolved(vault, body=BODY.replace("beach", "moon")).spec.state_dir == resolved(vault).spec.state_dir
    assert resolved(vault, "rank: 9").spec.state_dir != resolved(vault).spec.state_dir


def test_pictures_are_spoken_of_by_short_names_that_differ(vault: Path) -> None:
    found = resolved(
        vault, body="![[cat1.jpg]]\n![[Other/cat1.jpg]]\n![[cat2.jpg]]\n![[cat1.jpg]]\nlate caption\n![[x.svg]]"
    )
    assert [one.name for one in found.spec.pictures] == ["cat1.jpg", "Other/cat1.jpg", "cat2.jpg"]
    assert found.spec.pictures[0].caption == "late caption"
    said = " ".join(found.warnings)
    assert "Embedded more than once, and counted once: cat1.jpg" in said
    assert "x.svg is no picture" in said


def test_a_link_that_leaves_the_vault_is_refused(vault: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    os.symlink(tmp_path / "secret.jpg", vault / "link.jpg")
    assert "leads outside the vault" in refused(vault, body="![[link.jpg]]")


def test_folders_are_looked_for_in_the_vault_and_in_configured_places_only(vault: Path, tmp_path: Path) -> None:
    outside, configured = tmp_path / "outside", tmp_path / "configured"
    for folder in (outside, configured / "set", vault / ".hidden"):
        folder.mkdir(parents=True)
    assert folder_of("Pets", vault, ()) == vault / "Pets"
    assert folder_of("Pets/", vault, ()) == vault / "Pets"
    assert folder_of("set", vault, (configured,)) == configured / "set"
    assert folder_of(str(configured / "set"), vault, (configured,)) == configured / "set"
    assert "neither in the vault nor" in str(folder_of(str(outside), vault, (configured,)))
    assert "no folder ../outside" in str(folder_of("../outside", vault, ()))
    assert "is hidden" in str(folder_of(".hidden", vault, ()))
    os.symlink(outside, vault / "way-out")
    assert "no folder way-out" in str(folder_of("way-out", vault, ()))


def test_a_folder_is_read_with_its_captions(vault: Path) -> None:
    for name in ("a.jpg", "b.png", "notes.md", ".c.jpg"):
        (vault / "Pets" / name).touch()
    (vault / "Pets/a.txt").write_text("sks cat on a wall")
    found = in_folder("Pets", vault, ())
    assert [(one.name, one.caption) for one in found.pictures] == [
        ("a.jpg", "sks cat on a wall"), ("b.png", None), ("cat2.jpg", None),
    ]  # fmt: skip
    assert all(one.regularisation for one in in_folder("Pets", vault, (), regularisation=True).pictures)
    (vault / "empty").mkdir()
    assert in_folder("empty", vault, ()).problems == ["There is no picture in the folder empty."]
    assert "no folder nothing" in in_folder("nothing", vault, ()).problems[0]


def test_a_text_file_beside_an_embedded_picture_is_its_caption_if_the_note_has_none(vault: Path) -> None:
    (vault / "Pets/cat2.txt").write_text("beside")
    (vault / "cat1.txt").write_text("not this one")
    assert [one.caption for one in resolved(vault).spec.pictures] == ["sks cat on a sofa", "beside"]


def test_names_of_several_sources_are_told_apart_and_repeats_are_set(vault: Path) -> None:
    from loravault.formats.training import TrainingPicture

    one = TrainingPicture(path=str(vault / "cat1.jpg"), name="cat1.jpg")
    other = TrainingPicture(path=str(vault / "Other/cat1.jpg"), name="cat1.jpg", repeats=3)
    found = merged([Found([one]), Found([one, other])], repeats=None)
    assert [(p.name, p.repeats) for p in found.pictures] == [("cat1.jpg", 1), ("cat1.jpg (2)", 3)]
    assert {p.repeats for p in merged([Found([one, other])], repeats=5).pictures} == {5}


# ---- a model that describes pictures


@pytest.fixture
def captioner(tmp_path: Path) -> Path:
    return make_captioner(tmp_path / "models" / "blip")


def test_a_captioner_is_asked_for_where_a_picture_has_no_caption(vault: Path, captioner: Path) -> None:
    assert resolved(vault, captioner=captioner).spec.captioner == str(captioner)
    told = BODY.replace("![[Pets/cat2.jpg|300]]", "![[Pets/cat2.jpg|300]] asleep")
    for found in (
        resolved(vault, captioner=None),
        resolved(vault, body=told, captioner=captioner),
        resolved(vault, "captioner: false", captioner=captioner),
    ):
        assert found.spec.captioner is None
        assert found.warnings == ()


def test_what_the_note_says_of_the_captioner_has_to_make_sense(vault: Path, captioner: Path) -> None:
    assert resolved(vault, "captioner: true", captioner=captioner).spec.captioner == str(captioner)
    assert resolved(vault, "captioner: auto", captioner=captioner).spec.captioner == str(captioner)
    assert "config.toml names no folder" in " ".join(resolved(vault, "captioner: true").warnings)
    assert '"captioner" is "blip": it must be true or false' in refused(vault, "captioner: blip", captioner=captioner)
    assert "did you mean `captioner`" in " ".join(resolved(vault, "captoner: false", captioner=captioner).warnings)


def test_one_that_cannot_be_used_now_is_left_to_the_worker_and_repaired_makes_another_adapter(
    vault: Path, captioner: Path
) -> None:
    """What was learned with its captions goes on with them, so the state has to be the same."""
    whole = resolved(vault, captioner=captioner)
    (captioner / "config.json").rename(captioner / "away.json")
    broken = resolved(vault, captioner=captioner)
    assert broken.spec == replace(whole.spec, captioner_was_there=False)
    assert broken.warnings == ()
    assert len({one.fingerprint for one in (whole, broken, resolved(vault))}) == 3
    (captioner / "away.json").rename(captioner / "config.json")
    assert resolved(vault, captioner=captioner).fingerprint == whole.fingerprint


def test_a_captioner_makes_another_training_only_where_it_says_something(vault: Path, captioner: Path) -> None:
    told = BODY.replace("![[Pets/cat2.jpg|300]]", "![[Pets/cat2.jpg|300]] asleep")
    assert resolved(vault, body=told, captioner=captioner).fingerprint == resolved(vault, body=told).fingerprint
    plain, first = resolved(vault), resolved(vault, captioner=captioner)
    assert plain.spec.state_dir != first.spec.state_dir
    os.utime(captioner / "vocab.txt", ns=(1, 1))
    assert resolved(vault, captioner=captioner).fingerprint == first.fingerprint, "as after copying it"
    (captioner / "vocab.txt").write_text("another vocabulary")
    replaced = resolved(vault, captioner=captioner)
    moved = resolved(vault, captioner=captioner.rename(captioner.with_name("other")))
    assert len({one.fingerprint for one in (plain, first, replaced, moved)}) == 4


def test_an_empty_text_file_is_a_caption_that_no_captioner_changes(vault: Path, captioner: Path) -> None:
    (vault / "Pets/cat2.txt").write_text("")
    assert resolved(vault, captioner=captioner).spec.captioner is None
