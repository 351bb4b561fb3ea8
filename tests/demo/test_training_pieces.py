"""The parts of the demo's training that can go wrong silently."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from demo import captions, words  # noqa: E402
from demo.common import Ema, one_cycle  # noqa: E402
from demo.descent import Descent, Plan  # noqa: E402
from demo.draw import draw_array, random_scene  # noqa: E402
from demo.model import TEXT_WIDTH, learn_merges, new_text_encoder, new_tokenizer, new_unet, new_vae  # noqa: E402
from demo.recipes import NEWCOMER  # noqa: E402
from demo.train_adapter import load_base, merge, targets, train  # noqa: E402
from demo.train_unet import Base  # noqa: E402
from demo.train_vae import NOISE, forward, normalise, to_tensor  # noqa: E402

pytestmark = pytest.mark.engine
DEMO_BASE = Path(__file__).resolve().parents[2] / "loravault" / "data" / "demo_base"


def test_every_known_word_is_one_token_and_strangers_are_not_lost() -> None:
    """An invented word falls into pieces, but never into the unknown token."""
    tokenizer = new_tokenizer(words.vocabulary())
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words.vocabulary())
    rng = random.Random(1)
    for word in [captions.nonsense(rng) for _ in range(50)] + ["gho", "köşe", "猫"]:
        pieces = tokenizer.tokenize(word)
        assert len(pieces) > 1 or len(word) == 1
        assert tokenizer.unk_token not in pieces


def test_merges_do_not_depend_on_the_order_of_words() -> None:
    """The exported tokenizer must come out the same everywhere."""
    assert learn_merges(words.vocabulary()) == learn_merges(tuple(reversed(words.vocabulary())))


def test_normalising_changes_no_picture_and_whitens_the_latents() -> None:
    """Whitening is folded into the convolutions round the latents: same reconstruction, unit variance after scaling."""
    torch.manual_seed(0)
    vae = new_vae().eval()
    rng = random.Random(2)
    import numpy as np

    drawn = np.stack([draw_array(random_scene(rng)) for _ in range(12)])
    images = to_tensor(drawn, drawn.shape[1])
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mode()).sample
        normalise(vae, drawn)
        posterior = vae.encode(images).latent_dist
        after = vae.decode(posterior.mode()).sample
    scaled = posterior.mean * vae.config.scaling_factor
    assert torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.02)
    assert torch.allclose(scaled.std(dim=(0, 2, 3)), torch.ones(4), atol=0.05)
    assert torch.allclose(posterior.std * vae.config.scaling_factor, torch.tensor(NOISE), atol=1e-4)


def test_the_autoencoder_learns_with_noise_on_its_means() -> None:
    """The training pass is noisy, the posterior's parameters are not used."""
    torch.manual_seed(0)
    vae = new_vae()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    first, means = forward(vae, images)
    second, again = forward(vae, images)
    assert torch.equal(means, again)
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_the_trainer_writes_is_what_a_plain_reader_merges(tmp_path: Path) -> None:
    """A recipe becomes a file under the names that `merge` knows, and changes what the base says."""
    recipe = replace(NEWCOMER, name="tried", pictures=3, steps=2, batch=1, rank=2)
    outcome = train(tmp_path / "work", DEMO_BASE, recipe, tmp_path / "out")
    tensors = load_file(outcome.checkpoints[-1].path)
    pipe, base = load_base(DEMO_BASE)
    assert {key.split(".")[0] for key in tensors} == set(targets(base))
    noisy, times = torch.randn(1, 4, 16, 16), torch.tensor([500])
    tokens = pipe.tokenizer(["a red sks"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        untouched = base(noisy, times, tokens)
        merge(base, tensors)
        assert not torch.equal(base(noisy, times, tokens), untouched)


def test_adapter_keys_are_those_of_sd_scripts() -> None:
    """Every Linear and 1x1 convolution of the attention blocks; `text_model` in the keys of the text encoder."""
    base = Base(new_unet(), new_text_encoder(new_tokenizer(words.vocabulary())))
    names = set(targets(base))
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0" in names
    assert "lora_unet_down_blocks_1_attentions_0_proj_in" in names
    assert "lora_te_text_model_encoder_layers_1_mlp_fc2" in names
    assert len([n for n in names if n.startswith("lora_te_")]) == 2 * 6
    assert len([n for n in names if n.startswith("lora_unet_")]) == 7 * 12
    assert base.unet.config.cross_attention_dim == TEXT_WIDTH


def test_average_forgets_the_random_start() -> None:
    """After few steps the average must not still hold the initial weights."""
    module = torch.nn.Linear(1, 1, bias=False)
    ema = Ema(module, 0.999)
    with torch.no_grad():
        module.weight.fill_(5.0)
    for _ in range(60):
        ema.update(module)
    ema.copy_to(module)
    assert abs(module.weight.item() - 5.0) < 0.05


def test_a_training_that_was_interrupted_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    """The last checkpoint holds weights, average, momentum and step: only the steps since then are made again."""
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

    def trained(name: str, *, falls_at: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        ema = Ema(layer, 0.9)
        descent = Descent(Plan("layer", tmp_path / name, 7, 0.1, 3), layer, optimizer, ema)

        def loss_at(step: int) -> torch.Tensor:
            if step == falls_at:
                raise KeyboardInterrupt
            seen.append(step)
            return (layer(data[step : step + 1]) - 1).square().mean()

        descent.run(loss_at)
        return ema.shadow

    seen: list[int] = []
    whole = trained("whole")
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        trained("resumed", falls_at=5)
    resumed = trained("resumed")
    assert seen == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_learning_rate_rises_then_falls() -> None:
    """One cycle: from almost nothing to the peak and down to a hundredth."""
    rates = [one_cycle(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.02
    peak = rates.index(max(rates))
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))


def test_shipped_base_loads_as_everybody_loads_it() -> None:
    """No option but local_files_only; one step gives a picture of the declared size."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(str(DEMO_BASE), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    assert {model.dtype for model in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert pipe("a red cat", num_inference_steps=1).images[0].size == (128, 128)
