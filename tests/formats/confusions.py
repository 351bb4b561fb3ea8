"""What the tables cannot tell apart, found by asking them: the list that `docs/families.md` publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loravault.formats.families import FAMILY_TITLES, identify
from tests.formats import derived


@dataclass(frozen=True)
class Answer:
    """One header that was asked about, and what came of it."""

    family: str
    variant: str | None
    #: What of the model was trained, and with which algorithm if it is not plain LoRA.
    trained: str
    said: str
    said_variant: str | None
    possible: tuple[str, ...]
    network: str

    @property
    def right(self) -> bool:
        """Whether everything is told, and is right."""
        return (self.said, self.said_variant) == (self.family, self.variant)


def answers(thin: Callable[[derived.Layers], derived.Layers] = derived.thinned) -> Iterator[Answer]:
    """Every model in every spelling, part and algorithm, identified from its header alone."""
    for (family, variant), layers in derived.architectures().items():
        for trained, algorithm, spelling, part in derived.cases(family, thin(layers)):
            spell, plain = derived.SPELLINGS[spelling]
            parts = plain if algorithm == "lora" else derived.ALGORITHMS[algorithm]
            found = identify(derived.header(derived.tensors(part, spell, parts)))
            what = trained if algorithm == "lora" else algorithm
            yield Answer(family, variant, what, found.family, found.variant, found.possible, found.network)


def published(found: list[Answer]) -> str:
    """The table of what is not told completely, as Markdown."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for answer in found:
        if answer.right or answer.family == "unknown":
            continue
        key = (_title(answer.family, answer.variant), _title(answer.said, answer.said_variant),
               ", ".join(FAMILY_TITLES[family] for family in answer.possible))  # fmt: skip
        trained = rows.setdefault(key, [])
        if answer.trained not in trained:
            trained.append(answer.trained)
    lines = ["| made for | trained | answered | shapes allow |", "|---|---|---|---|"]
    lines += [
        f"| {made} | {', '.join(trained)} | {said} | {possible} |" for (made, said, possible), trained in rows.items()
    ]
    return "\n".join(lines)


def _title(family: str, variant: str | None) -> str:
    return " ".join(part for part in (FAMILY_TITLES.get(family, family), variant) if part)
