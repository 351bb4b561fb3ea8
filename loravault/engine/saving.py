"""From pixels to a file that says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from loravault.engine.draw import flatness
from loravault.engine.imagefile import SUFFIXES, save_image
from loravault.engine.inscription import chunk_of, infotext_of
from loravault.engine.job import Job
from loravault.errors import UserError
from loravault.formats.outcome import MadeImage


def keep(job: Job, pixels: np.ndarray[Any, np.dtype[np.uint8]] | None, versions: Mapping[str, str]) -> None:
    """Saves the next image of a job, or says why there is none. Raises `UserError` if it cannot be written."""
    spec, index = job.spec, job.done
    job.done += 1
    which = f"Image {index + 1} (seed {spec.seeds[index]})"
    if pixels is None:
        job.warn(
            f"{which} came out as NaN, so nothing was kept of it. Lower the weights of the LoRAs or cfg, "
            "or try another sampler."
        )
        return
    if flaw := flatness(pixels):
        job.warn(f"{which} is {flaw}. Lower the weights of the LoRAs or cfg, or take more steps.")
    wish, image = job.wish, Image.fromarray(pixels)
    name = f"{wish.stem}-{index + 1}"
    path = wish.out_dir / f"{name}.{SUFFIXES[spec.image_format]}"
    infotext = infotext_of(spec, index, job.hashes)
    chunk = chunk_of(spec, index, wish.provenance, dict(versions))
    try:
        if wish.originals is not None:
            original = wish.originals / f"{name}.png"
            save_image(image, original, image_format="png", infotext=infotext, chunk=chunk)
        save_image(image, path, image_format=spec.image_format, infotext=infotext, chunk=chunk)
    except OSError as error:
        raise UserError(f"The picture could not be written: {error.strerror or error}.") from error
    job.images.append(
        MadeImage(path=str(path), index=index, seed=spec.seeds[index], width=spec.width, height=spec.height)
    )
