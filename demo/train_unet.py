"""Train the UNet and the text encoder together on cached latents of the drawn pictures."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from demo import captions, parallel, words
from demo.common import Ema, device, seed_everything
from demo.dataset import Pictures, scenes
from demo.descent import Descent, Plan
from demo.model import MAX_TOKENS, SCALING_FACTOR, new_scheduler, new_text_encoder, new_tokenizer, new_unet
from demo.train_vae import PICTURES, pictures

STEPS, BATCH, PEAK = 9600, 20, 1.3e-3
UNET_PICTURES, PIECE = 20_000, 500  # how many of the drawn pictures, and how many are encoded at a time
CAPTION_DROPOUT = 0.1
MIN_SNR = 5.0


class Base(nn.Module):
    """UNet and text encoder as one module: one optimiser, one average, one checkpoint."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise."""
        context = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, context).sample  # type: ignore[no-any-return]


@torch.no_grad()
def encode(vae: AutoencoderKL, drawn: Pictures) -> Tensor:
    """Scaled latents [n, 4, 16, 16] (the means of the posterior) of uint8 pictures."""
    parts = []
    for start in range(0, len(drawn), 64):
        images = (
            torch.from_numpy(drawn[start : start + 64]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).to(device())
        )
        with torch.autocast(device().type, torch.bfloat16):
            moments = vae.quant_conv(vae.encoder(images))
        parts.append(moments[:, :4].float().cpu() * SCALING_FACTOR)
    return torch.cat(parts)


def _encode_share(work: Path, rank: int, workers: int) -> None:
    """One worker's share of the training pictures, in pieces that survive an interruption."""
    vae = AutoencoderKL.from_pretrained(str(work / "vae_final")).to(device()).to(memory_format=torch.channels_last)
    drawn = pictures(work)
    for start in range(rank * PIECE, UNET_PICTURES, workers * PIECE):
        path = work / "latents" / f"{start}.npy"
        if not path.exists():
            np.save(path, encode(vae, drawn[start : start + PIECE]).numpy())


def cached_latents(work: Path) -> Tensor:
    """The latents of the training pictures, computed once."""
    folder = work / "latents"
    paths = [folder / f"{start}.npy" for start in range(0, UNET_PICTURES, PIECE)]
    if not all(path.exists() for path in paths):
        folder.mkdir(exist_ok=True)
        parallel.run(_encode_share, work)
    return torch.from_numpy(np.concatenate([np.load(path) for path in paths]))


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers [n, 77], padded as Stable Diffusion pads."""
    batch = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return batch.input_ids.to(device())


def diffusion_loss(model: nn.Module, latents: Tensor, tokens: Tensor, alphas: Tensor) -> Tensor:
    """Min-SNR weighted error of the predicted noise at random times."""
    noise = torch.randn_like(latents)
    times = torch.randint(0, len(alphas), (len(latents),), device=latents.device)
    alpha = alphas[times].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    with torch.autocast(latents.device.type, torch.bfloat16):
        predicted = model(noisy, times, tokens)
    snr = alphas[times] / (1 - alphas[times])
    weight = snr.clamp(max=MIN_SNR) / snr
    return ((predicted.float() - noise).square().mean(dim=(1, 2, 3)) * weight).mean()


def new_base() -> tuple[Base, CLIPTokenizer]:
    """Untrained, seeded."""
    seed_everything(4)
    tokenizer = new_tokenizer(words.vocabulary())
    return fast_attention(Base(new_unet(), new_text_encoder(tokenizer)).to(device())), tokenizer


def fast_attention(base: Base) -> Base:
    """On a CPU plain matrix products: the backward pass of fused attention took 42 % of a step (measured)."""
    if device().type == "cpu":
        base.unet.set_attn_processor(AttnProcessor())
        base.text_encoder.set_attn_implementation("eager")
    return base


def averaged_base(work: Path) -> tuple[Base, CLIPTokenizer]:
    """The average of the latest checkpoint, for an export while training still runs."""
    base, tokenizer = new_base()
    state = torch.load(work / "unet.pt", map_location="cpu", weights_only=True)
    base.load_state_dict({k: v.to(base.state_dict()[k].dtype) for k, v in state["ema"].items()})
    return base.eval(), tokenizer


def train(work: Path) -> tuple[Base, CLIPTokenizer]:
    """Train (or resume) and return the average in evaluation mode."""
    cached_latents(work)
    parallel.run(_train, work)
    return averaged_base(work)


def _train(work: Path, rank: int, workers: int) -> None:
    latents = cached_latents(work)
    drawn_scenes = scenes(PICTURES, seed=1)
    # a second colour word is the hardest to learn: plain backgrounds are shown twice as often as they were drawn
    often = torch.tensor(
        [2.0 if scene.background.startswith("plain ") else 1.0 for scene in drawn_scenes[:UNET_PICTURES]]
    )
    base, tokenizer = new_base()
    base.train()
    optimizer = torch.optim.AdamW(base.parameters(), lr=PEAK, weight_decay=1e-3, betas=(0.9, 0.99), fused=True)
    descent = Descent(Plan("unet", work / "unet.pt", STEPS, PEAK, 250), base, optimizer, Ema(base, 0.999))
    seed_everything(1000 * rank + 5 + descent.done)  # now every worker draws its own pictures, times and noise
    alphas = new_scheduler().alphas_cumprod.to(device())
    rng = random.Random(1000 * rank + descent.done)

    def loss_at(_step: int) -> Tensor:
        chosen = torch.multinomial(often, BATCH // workers, replacement=True)
        texts = [
            captions.empty(rng) if rng.random() < CAPTION_DROPOUT else captions.varied(drawn_scenes[n], rng)
            for n in chosen.tolist()
        ]
        return diffusion_loss(base, latents[chosen].to(device()), tokenise(tokenizer, texts), alphas)

    descent.run(loss_at, rank, workers)
