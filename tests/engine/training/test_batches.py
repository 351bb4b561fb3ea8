"""What step n learns from: a pure function of n, in which every picture counts as it should."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loravault.dataset.survey import survey
from loravault.engine.bases import Base
from loravault.engine.ends import Stopped
from loravault.engine.training.batch import Batch
from loravault.engine.training.batches import Batches, held_back, sizes_of
from loravault.engine.training.parts import encodes_later
from loravault.engine.training.store import Store
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.training import LookedAt, Survey, TrainingPicture
from tests.engine.training.learned import PLAIN, batches, black, device, loaded, pictures, spec_of

pytestmark = pytest.mark.engine

SIZES = {"a.png": (64, 64), "b.png": (64, 64), "c.png": (64, 64), "d.png": (128, 64), "e.png": (96, 48)}


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return loaded(tiny)


def same(one: Batch, other: Batch) -> bool:
    def equal(left: Any, right: Any) -> bool:
        if isinstance(left, dict):
            return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
        return left is right if left is None or right is None else torch.equal(left, right)

    return all(equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch))


def seen(found: Batches, steps: int, accumulation: int = 1) -> Counter[int]:
    return Counter(
        item.picture for step in range(steps) for micro in range(accumulation) for item, _ in found.picked(step, micro)
    )


EVERYTHING = {
    "flip": True, "shuffle": True, "caption_dropout": 0.3, "tag_dropout": 0.2, "accumulation": 2,
    "resolutions": (64, 96), "validation": 1, "caption_prefix": "photo of ",
}  # fmt: skip


def test_a_run_that_goes_on_learns_from_the_same_bit_for_bit(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """Another process with the cache of the first, asked in another order; and one without any cache."""
    shown = pictures(tmp_path / "p", SIZES)
    steps = [(step, micro) for step in range(8) for micro in range(2)]
    first = batches(base, tiny, shown, tmp_path / "c", **EVERYTHING)
    expected = {key: first.at(*key) for key in steps}
    for cache in ("c", "new"):
        again = batches(base, tiny, shown, tmp_path / cache, **EVERYTHING)
        for key in reversed(steps):
            assert same(again.at(*key), expected[key])
        assert all(same(one, other) for one, other in zip(again.held_out(), first.held_out(), strict=True))


def test_a_batch_is_what_it_says(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    found = batches(base, tiny, shown, tmp_path / "c")
    shapes = set()
    for step in range(12):
        batch = found.at(step)
        count, channels, height, width = batch.latents.shape
        assert (count, channels) == (2, 4)
        assert batch.latents.dtype == torch.float32
        assert set(batch.texts) == {"prompt_embeds"}
        assert batch.texts["prompt_embeds"].shape == (2, 77, 40)
        assert batch.tokens == {}
        assert batch.masks is None
        assert batch.weights.tolist() == [1.0, 1.0]
        assert batch.is_regularisation.tolist() == [False, False]
        assert batch.sizes.shape == (2, 6)
        assert batch.sizes[:, 4:].tolist() == [[8.0 * height, 8.0 * width]] * 2
        shapes.add((width, height))
    assert len(shapes) > 1
    assert found.buckets == ((64, 64, 3), (80, 48, 2))


def test_every_picture_counts_equally_whatever_its_bucket(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """Two buckets, of three and two pictures, and batches of two."""
    found = batches(base, tiny, pictures(tmp_path / "p", SIZES), tmp_path / "c", prepared=False)
    counts = seen(found, 150)
    assert sum(counts.values()) == 300
    assert all(abs(counts[one] - 60) <= 2 for one in range(5))


def test_repeats_count(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    shown[3] = replace(shown[3], repeats=4)
    found = batches(base, tiny, shown, tmp_path / "c", prepared=False)
    counts = seen(found, 80)
    assert all(abs(counts[one] - (80 if one == 3 else 20)) <= 4 for one in range(5))


def test_two_processes_learn_from_the_halves_of_one_batch(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    plan: dict[str, Any] = {"flip": True, "caption_dropout": 0.3}
    whole = batches(base, tiny, shown, tmp_path / "c", batch=4, **plan)
    halves = [batches(base, tiny, shown, tmp_path / "c", batch=2, rank=rank, world=2, **plan) for rank in (0, 1)]
    for step in range(8):
        batch = whole.at(step)
        assert same(halves[0].at(step), batch.part(slice(0, 2)))
        assert same(halves[1].at(step), batch.part(slice(2, 4)))


def test_latents_are_drawn_anew_in_every_step(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """The distribution is kept, not one draw from it."""
    found = batches(base, tiny, pictures(tmp_path / "p", {"a.png": (64, 64)}), tmp_path / "c", batch=1)
    drawn = torch.stack([found.at(step).latents[0] for step in range(60)])
    moments = found._latents.get(found._wanted(found._items[0], flip=False))
    scale = base.pipe.vae.config.scaling_factor
    assert len({one.numpy().tobytes() for one in drawn}) == 60
    assert torch.allclose(drawn.std(dim=0) / (moments.std * scale), torch.ones(()), atol=0.45)
    assert float(((drawn.mean(dim=0) / scale - moments.mean) / moments.std).abs().max()) < 0.7


def test_pictures_of_the_class_come_between_those_of_the_subject(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """One to one, with their weight, and without the trigger."""
    shown = pictures(tmp_path / "p", SIZES)
    class_ = pictures(tmp_path / "r", {"r.png": (64, 64), "s.png": (64, 64)}, regularisation=True)
    class_[1] = replace(class_[1], caption=None)
    found = batches(base, tiny, [*shown, *class_], tmp_path / "c", prior_weight=0.5, accumulation=2)
    for step in range(6):
        own, prior = found.at(step, 0), found.at(step, 1)
        assert own.is_regularisation.tolist() == [False, False]
        assert own.weights.tolist() == [1.0, 1.0]
        assert prior.is_regularisation.tolist() == [True, True]
        assert prior.weights.tolist() == [0.5, 0.5]
    assert found.captions[5:] == ("r, one, two, three", "cat")
    counts = seen(found, 100, 2)
    assert all(abs(counts[one] - 40) <= 2 for one in range(5))
    assert counts[5] == counts[6] == 100
    alone = batches(base, tiny, shown, tmp_path / "c", prepared=False)
    for step in range(20):  # the subject is learned from as if the class were not there
        assert [item for item, _ in found.picked(step, 0)] == [item for item, _ in alone.picked(step)]


def test_without_weight_they_are_left_out(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {"a.png": (64, 64)})
    class_ = pictures(tmp_path / "r", {"r.png": (64, 64)}, regularisation=True)
    found = batches(base, tiny, [*shown, *class_], tmp_path / "c", prior_weight=0.0, prepared=False)
    assert set(seen(found, 10)) == {0}


def looked(hashes: list[str], problem: dict[int, str] | None = None) -> tuple[list[TrainingPicture], Survey]:
    looks = [LookedAt(name=str(n), sha256=sha, problem=(problem or {}).get(n)) for n, sha in enumerate(hashes)]
    return [TrainingPicture(path=f"/{n}", name=str(n)) for n in range(len(hashes))], Survey(pictures=tuple(looks))


def test_pictures_are_held_back_by_their_hash() -> None:
    """The same ones in every training, wherever they stand; copies go together; one is always left."""
    hashes = [f"{n:064x}" for n in range(10)]
    chosen = {hashes[one] for one in held_back(*looked(hashes), 3)}
    assert len(chosen) == 3
    assert {hashes[::-1][one] for one in held_back(*looked(hashes[::-1]), 3)} == chosen
    doubled = held_back(*looked(hashes * 2), 3)
    assert len(doubled) == 6
    assert {(hashes * 2)[one] for one in doubled} == chosen
    assert held_back(*looked(hashes), 0) == frozenset()
    assert len(held_back(*looked(hashes), 99)) == 9
    assert held_back(*looked(hashes[:1]), 5) == frozenset()
    spoiled = dict.fromkeys(range(8), "damaged")
    assert held_back(*looked(hashes, spoiled), 9) <= {8, 9}
    shown, survey_ = looked(hashes)
    assert held_back([replace(one, regularisation=True) for one in shown], survey_, 3) == frozenset()


def test_held_back_pictures_are_measured_with_and_never_learned_from(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    plan: dict[str, Any] = {"validation": 2, "flip": True, "shuffle": True, "caption_dropout": 0.9}
    found = batches(base, tiny, shown, tmp_path / "c", **plan)
    assert len(found.held_back) == 2
    assert not set(seen(found, 100)) & found.held_back
    held = list(found.held_out())
    assert sum(len(batch) for batch in held) == 2
    assert all(same(one, other) for one, other in zip(found.held_out(), held, strict=True))
    (number, *_) = sorted(found.held_back, key=lambda one: found._held[0].picture != one)
    item = found._held[0]
    mean = found._latents.get(found._wanted(item, flip=False)).mean * base.pipe.vae.config.scaling_factor
    assert any(torch.equal(latents, mean) for batch in held for latents in batch.latents)
    expected = base.drawer.encode(base.pipe, found.captions[number], 1, negative=False)["prompt_embeds"][0]
    assert any(torch.equal(states, expected) for batch in held for states in batch.texts["prompt_embeds"])


def test_every_picture_is_measured_once_however_many_resolutions(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {f"{n}.png": (128, 128) for n in range(4)})
    found = batches(base, tiny, shown, tmp_path / "c", validation=3, resolutions=(64, 96, 128))
    assert [len(batch) for batch in found.held_out()] == [2, 1]
    assert len(found._items) == 3


def test_about_half_are_mirrored_with_their_sizes(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {"a.png": (200, 64)})
    found = batches(base, tiny, shown, tmp_path / "c", flip=True, batch=1)
    plain, mirrored = (found._latents.get(found._wanted(found._items[0], flip=flip)) for flip in (False, True))
    assert not torch.allclose(plain.mean, mirrored.mean, atol=1e-2)
    flips = 0
    for step in range(60):
        batch = found.at(step)
        distances = [float((batch.latents[0] / 0.18215 - one.mean).abs().mean()) for one in (plain, mirrored)]
        flips += distances[1] < distances[0]
    assert 18 < flips < 42


def test_the_sizes_that_sdxl_is_told(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """(height, width) as it was, (top, left) of the cut in scaled pixels, (height, width) trained at."""
    shown = pictures(tmp_path / "p", {"a.png": (400, 100)})
    found = batches(base, tiny, shown, tmp_path / "c", batch=1)
    ((item, _),) = found.picked(0)
    placement = item.placement
    assert placement.bucket == (128, 32)
    assert found.at(0).sizes.tolist() == [[100.0, 400.0, placement.crop[1], placement.crop[0], 32.0, 128.0]]
    odd = replace(found._wanted(item, flip=False), placement=replace(placement, scaled=(131, 32), crop=(1, 0)))
    assert sizes_of(odd)[3] == 1
    assert sizes_of(replace(odd, flip=True))[3] == 2


def test_squares_are_cut_out_at_random(tmp_path: Path, tiny: BaseRef) -> None:
    """Everywhere in the picture, the same in the same step, without a cache of latents."""
    base = loaded(tiny)
    shown = pictures(tmp_path / "p", {"a.png": (256, 64)})
    shown[0] = replace(shown[0], mask=str(black(tmp_path / "m.png", (256, 64))))
    found = batches(base, tiny, shown, tmp_path / "c", crops=True, batch=1, flip=True)
    lefts = []
    for step in range(30):
        batch = found.at(step)
        assert batch.latents.shape == (1, 4, 8, 8)
        assert batch.masks is not None
        lefts.append(float(batch.sizes[0, 3]))
    assert min(lefts) < 40
    assert max(lefts) > 150
    assert same(found.at(7), batches(base, tiny, shown, tmp_path / "c", crops=True, batch=1, flip=True).at(7))
    assert not (tmp_path / "c" / "latents").exists()
    before = found.at(7)
    found.prepare(release=True)
    assert same(found.at(7), before)


def test_masks_of_some_pictures(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """Where one of a batch has none, everything of it counts."""
    shown = pictures(tmp_path / "p", {"a.png": (64, 64), "b.png": (64, 64)})
    shown[0] = replace(shown[0], mask=str(black(tmp_path / "m.png", (64, 64))))
    found = batches(base, tiny, shown, tmp_path / "c")
    batch = found.at(0)
    assert batch.masks is not None
    assert batch.masks.shape == (2, 1, 8, 8)
    means = {item.picture: float(mask.mean()) for (item, _), mask in zip(found.picked(0), batch.masks, strict=True)}
    assert means == {0: 0.5, 1: 1.0}


def test_weights_that_are_not_needed_are_let_go_of(tmp_path: Path, tiny: BaseRef) -> None:
    own = loaded(tiny)
    shown = pictures(tmp_path / "p", SIZES)
    layers = own.layers
    found = batches(own, tiny, shown, tmp_path / "c", prepared=False)
    found.prepare(release=True)
    assert all(part.is_meta for model in (own.pipe.vae, own.pipe.text_encoder) for part in model.parameters())
    assert not any(part.is_meta for part in own.denoiser.parameters())
    assert own.layers == layers
    assert same(found.at(3), batches(loaded(tiny), tiny, shown, tmp_path / "c").at(3))
    trained = loaded(tiny)
    batches(trained, tiny, shown, tmp_path / "c", te_rate=1e-4, prepared=False).prepare(release=True)
    assert not any(part.is_meta for part in trained.pipe.text_encoder.parameters())


def test_pictures_that_are_encoded_on_the_way_give_the_same_batches(tmp_path: Path, tiny: BaseRef) -> None:
    """The first step waits for its own pictures; the VAE goes with the last; a later training encodes none."""
    own, shown = loaded(tiny), pictures(tmp_path / "p", SIZES)
    found = batches(own, tiny, shown, tmp_path / "c", prepared=False)
    found.prepare(release=True, later=True)
    assert found.encoding(100) == (0.0, 0.0), "nothing is known of it yet"
    beforehand = batches(loaded(tiny), tiny, shown, tmp_path / "other")
    assert same(found.at(0), beforehand.at(0))
    so_far, to_come = found.encoding(100)
    assert so_far > 0, "one batch is encoded"
    assert to_come == pytest.approx(so_far / 2 * 3), "three of five pictures are not"
    assert found.encoding(1)[1] == pytest.approx(so_far), "in one more step it will be two of them"
    assert not any(part.is_meta for part in own.pipe.vae.parameters())
    for step in range(12):
        assert same(found.at(step), beforehand.at(step))
    assert found.encoding(100)[1] == 0.0
    assert all(part.is_meta for part in own.pipe.vae.parameters())
    again = batches(loaded(tiny), tiny, shown, tmp_path / "c", prepared=False)
    again.prepare(release=True, later=True)
    assert same(again.at(5), beforehand.at(5))
    assert again.encoding(100) == (0.0, 0.0)


def test_a_card_does_not_wait_in_its_steps_for_pictures_to_be_encoded() -> None:
    """Of a base that is packed the VAE is on the processor, and the steps are not."""
    card = replace(device(), place=torch.device("cuda"))
    assert encodes_later(PLAIN, device())
    for plan in (PLAIN, replace(PLAIN, quantised="nf4"), replace(PLAIN, gpus=2)):
        assert not encodes_later(plan, card)
    assert not encodes_later(replace(PLAIN, gpus=2), device())


def test_pictures_of_the_class_without_weight_do_not_keep_the_vae(tmp_path: Path, tiny: BaseRef) -> None:
    """They are never learned from, so that what waits for them would wait until the end."""
    own, shown = loaded(tiny), pictures(tmp_path / "p", {"a.png": (64, 64)})
    class_ = pictures(tmp_path / "r", {"r.png": (64, 64)}, regularisation=True)
    found = batches(own, tiny, [*shown, *class_], tmp_path / "c", prior_weight=0.0, prepared=False)
    found.prepare(release=True, later=True)
    found.at(0)
    assert all(part.is_meta for part in own.pipe.vae.parameters())
    assert found.encoding(100)[1] == 0.0


def test_progress_counts_latents_and_captions(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    found = batches(base, tiny, shown, tmp_path / "c", caption_dropout=0.1, flip=True, prepared=False)
    said: list[tuple[int, int]] = []
    found.prepare(lambda done, of: said.append((done, of)))
    assert said[-1] == (10 + 6, 10 + 6)
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    with pytest.raises(Stopped):
        batches(base, tiny, shown, tmp_path / "other", prepared=False).prepare(cancelled=lambda: True)


def test_what_cannot_be_used_is_left_out(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", SIZES)
    Path(shown[1].path).write_bytes(b"no picture at all, but long enough to be looked at in earnest, as files are")
    found = batches(base, tiny, shown, tmp_path / "c")
    assert set(seen(found, 50)) == {0, 2, 3, 4}


def test_nothing_to_learn_from_is_told(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    with pytest.raises(UserError, match="There is nothing to learn from"):
        batches(base, tiny, [], tmp_path / "c")
    gone = [TrainingPicture(path=str(tmp_path / "gone.png"), name="gone.png")]
    with pytest.raises(UserError, match=r"“gone\.png”: it is not there any more"):
        batches(base, tiny, gone, tmp_path / "c")
    with pytest.raises(UserError, match="nothing to learn from"):  # the class alone teaches nothing
        batches(base, tiny, pictures(tmp_path / "r", {"r.png": (64, 64)}, regularisation=True), tmp_path / "c")


def test_what_a_bucket_does_is_in_the_survey(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {"a.png": (640, 64)})
    found = Batches(spec_of(tiny, shown, tmp_path), PLAIN, survey(shown), base, Store(tmp_path / "c"))
    assert found.survey.pictures[0].remarks == ("at 128×32 it loses 60% of its width",)
