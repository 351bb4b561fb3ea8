"""Train the autoencoder: f8, on its means plus a fixed small noise instead of a learned posterior.

A learned posterior was measured to be far too noisy for a UNet this small. Here each latent channel gets noise of a
fixed share of its own spread while the decoder learns, and the exported posterior carries just that spread.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from demo import parallel
from demo.common import Ema, device, seed_everything
from demo.dataset import Pictures, cached, doodle, scene_pictures, scenes
from demo.descent import Descent, Plan
from demo.model import SCALING_FACTOR, new_vae

NOISE = 0.05  # of each latent channel's standard deviation
PICTURES, DOODLES = 24_000, 6_000
PEAK = 1.2e-3
REFINE_STEPS, REFINE_BATCH, REFINE_PEAK = 400, 8, 8e-4
PHASES = ((2850, 64, 16), (150, 128, 8))  # (steps, crop, batch)


def pictures(work: Path) -> Pictures:
    """The pictures that the UNet will learn too."""
    return scene_pictures(work, "train", scenes(PICTURES, seed=1))


def to_tensor(batch: Pictures, crop: int) -> Tensor:
    """uint8 pictures [n, h, w, 3] as float [n, 3, crop, crop] in -1..1, each cropped at random."""
    whole = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if crop == whole.shape[-1]:
        return whole
    offsets = torch.randint(0, whole.shape[-1] - crop + 1, (len(whole), 2)).tolist()
    cut = [picture[:, y : y + crop, x : x + crop] for picture, (y, x) in zip(whole, offsets, strict=True)]
    return torch.stack(cut)


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels, on edges, and on two coarser scales."""
    total = functional.l1_loss(output, target)
    for scale in (1, 2, 4):
        a, b = (functional.avg_pool2d(x, scale) if scale > 1 else x for x in (output, target))
        if scale > 1:
            total = total + 0.5 * functional.l1_loss(a, b)
        total = (
            total
            + 0.5 * functional.l1_loss(a.diff(dim=-1), b.diff(dim=-1))
            + 0.5 * functional.l1_loss(a.diff(dim=-2), b.diff(dim=-2))
        )
    return total


def forward(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruction through noisy means; also the means."""
    means = vae.quant_conv(vae.encoder(images))[:, :4]
    spread = means.detach().float().std(dim=(0, 2, 3), keepdim=True)
    noisy = means + NOISE * spread * torch.randn_like(means)
    return vae.decoder(vae.post_quant_conv(noisy)), means


def train(work: Path) -> AutoencoderKL:
    """Train (or resume); returns the averaged model, normalised."""
    final = work / "vae_final"
    if not final.exists():
        pictures(work)
        cached(work, "doodles", range(DOODLES), doodle)
        parallel.run(_train, work)
        vae = new_vae()
        state = torch.load(work / "vae.pt", map_location="cpu", weights_only=True)
        vae.load_state_dict(state["ema"])
        normalise(vae.to(device()).eval(), pictures(work)[:600])
        vae.save_pretrained(str(final))
    return AutoencoderKL.from_pretrained(str(final)).to(device())


def _train(work: Path, rank: int, workers: int) -> None:
    plan = [phase for phase in PHASES for _ in range(phase[0])]
    seed_everything(2)
    vae = new_vae().to(device()).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK, weight_decay=1e-3, betas=(0.9, 0.98))
    descent = Descent(Plan("vae", work / "vae.pt", len(plan), PEAK, 200), vae, optimizer, Ema(vae, 0.998))
    seed_everything(1000 * rank + 3 + descent.done)  # from here on every worker draws its own pictures and noise
    drawn, doodles = pictures(work), cached(work, "doodles", range(DOODLES), doodle)

    def loss_at(step: int) -> Tensor:
        _, crop, batch = plan[step]
        images = _mixed_batch(drawn, doodles, crop, batch // workers).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            output, means = forward(vae, images)
        # a soft pull towards unit scale keeps the latents from drifting; it changes nothing that matters
        return loss_of(output.float(), images) + 1e-3 * (means.float().square().mean() - 1).abs()

    descent.run(loss_at, rank, workers)


def _mixed_batch(drawn: Pictures, doodles: Pictures, crop: int, batch: int) -> Tensor:
    """Scenes, and one doodle in eight."""
    some = max(1, round(batch / 8))
    parts = [
        drawn[torch.randint(0, len(drawn), (batch - some,)).numpy()],
        doodles[torch.randint(0, len(doodles), (some,)).numpy()],
    ]
    return to_tensor(np.concatenate(parts), crop)


def refine(work: Path) -> None:
    """Sharpen the decoder alone, after the UNet has learned the latents: what the latents mean stays as it is."""
    parallel.run(_refine, work)
    vae = AutoencoderKL.from_pretrained(str(work / "vae_final"))
    state = torch.load(work / "decoder.pt", map_location="cpu", weights_only=True)
    vae.decoder.load_state_dict(state["ema"])
    vae.save_pretrained(str(work / "vae_refined"))


def _refine(work: Path, rank: int, workers: int) -> None:
    vae = AutoencoderKL.from_pretrained(str(work / "vae_final")).to(device()).requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=REFINE_PEAK, weight_decay=1e-3, betas=(0.9, 0.98), fused=True
    )
    plan = Plan("decoder", work / "decoder.pt", REFINE_STEPS, REFINE_PEAK, 100)
    descent = Descent(plan, decoder, optimizer, Ema(decoder, 0.99))
    seed_everything(1000 * rank + 31 + descent.done)
    drawn, doodles = pictures(work), cached(work, "doodles", range(DOODLES), doodle)

    def loss_at(_step: int) -> Tensor:
        images = _mixed_batch(drawn, doodles, drawn.shape[1], REFINE_BATCH // workers).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            with torch.no_grad():
                means = vae.quant_conv(vae.encoder(images))[:, :4].float() * SCALING_FACTOR
                noisy = (means + NOISE * torch.randn_like(means)) / SCALING_FACTOR
            output = decoder(vae.post_quant_conv(noisy))
        return loss_of(output.float(), images)

    descent.run(loss_at, rank, workers)


@torch.no_grad()
def normalise(vae: AutoencoderKL, sample: Pictures) -> None:
    """Fold whitening into the 1x1 convolutions round the latents, so that mean x 0.18215 is white with unit variance.

    Afterwards the posterior's standard deviation is the fixed NOISE, whatever the picture.
    """
    images = to_tensor(sample, sample.shape[1])
    parts = [vae.quant_conv(vae.encoder(chunk.to(device())))[:, :4].cpu() for chunk in images.split(50)]
    flat = torch.cat(parts).permute(1, 0, 2, 3).reshape(4, -1).double()
    mean = flat.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    whiten = vectors @ torch.diag(values.rsqrt()) @ vectors.T  # ZCA: channels keep their meaning as far as possible
    colour = torch.linalg.inv(whiten)
    unit = 1 / SCALING_FACTOR
    weight, bias = vae.quant_conv.weight[:4, :, 0, 0].double().cpu(), vae.quant_conv.bias[:4].double().cpu()
    post, post_bias = vae.post_quant_conv.weight[:, :, 0, 0].double().cpu(), vae.post_quant_conv.bias.double().cpu()
    vae.quant_conv.weight.zero_()
    vae.quant_conv.weight[:4] = (unit * whiten @ weight)[:, :, None, None].float()
    vae.quant_conv.bias[:4] = (unit * whiten @ (bias - mean)).float()
    vae.quant_conv.bias[4:] = 2 * torch.log(torch.tensor(NOISE * unit))
    vae.post_quant_conv.weight.copy_((post @ colour / unit)[:, :, None, None].float())
    vae.post_quant_conv.bias.copy_((post_bias + post @ mean).float())
