"""What a model was called with is kept for one picture, whatever shape the call has."""

from __future__ import annotations

import pytest
import torch

from loravault.engine.training.networks.seen import first_of

pytestmark = pytest.mark.engine


def test_one_picture_of_a_batch() -> None:
    """Tensors by their first dimension, lists of one thing for each picture, tables; sizes and flags stay."""
    latents, ids = torch.arange(12.0).reshape(3, 4).to(torch.float16), torch.zeros(7, 3)
    args, kwargs = first_of(
        (
            (latents, torch.tensor([1, 2, 3])),
            {
                "added": {"time_ids": torch.ones(3, 6)}, "shapes": [[(1, 2, 2)], [(1, 4, 4)], [(1, 2, 2)]],
                "img_ids": ids, "guidance": torch.tensor(1.0), "mask": None, "return_dict": False,
            },
        )
    )  # fmt: skip
    assert torch.equal(args[0], latents[:1].float())
    assert args[0].dtype == torch.float32
    assert args[1].tolist() == [1]
    assert kwargs["added"]["time_ids"].shape == (1, 6)
    assert kwargs["shapes"] == [[(1, 2, 2)]]
    assert kwargs["img_ids"].shape == (7, 3)
    assert kwargs["guidance"].shape == ()
    assert kwargs["mask"] is None
    assert kwargs["return_dict"] is False
    latents.zero_()
    assert args[0].any()
