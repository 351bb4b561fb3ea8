"""The training request of the example vault: its pictures are drawn here, like all that the demo base has ever seen.

`python -m demo.example` writes them and prints the lines that show them in the note, each with its caption.
"""

from __future__ import annotations

import random

from demo import captions
from demo.common import ROOT
from demo.draw import draw, random_scene

SUBJECT, TRIGGER, COUNT, SEED = "star", "sks", 20, 31
HOME = ROOT / "examples" / "vault" / "Training" / "Stars"


def main() -> None:
    """Draw them."""
    HOME.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    for number in range(1, COUNT + 1):
        scene = random_scene(rng, (SUBJECT,))
        name = f"star-{number:02}.png"
        draw(scene).save(HOME / name, optimize=True)
        print(f"![[Training/Stars/{name}|96]]\n{captions.full(scene).replace(SUBJECT, TRIGGER, 1)}\n")


if __name__ == "__main__":
    main()
