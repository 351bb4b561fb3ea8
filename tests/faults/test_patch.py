"""W5: whatever is written into whatever note, taking it out again gives back every byte."""

from __future__ import annotations

import os
import random

import pytest
import yaml

from loravault.vault.answers import Answer, strip_ours
from loravault.vault.note import parse_note
from loravault.vault.properties import EditRefused
from tests.answering import apply_answers
from tests.synth_vault import BLOCKS, FRONTMATTERS, make_note

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a loaded machine is slow, not wrong
PIECES = (
    *(
        "```prompt\na cat\n```",
        "```prompt\na cat\n",
        "~~~",
        "- x",
        "  ",
        "> y",
        "%%",
        "<!--",
        "-->",
        "<div>",
        "text",
        "\n",
    ),
    *("\t", "    code", "---", "^lv-1a-000000", "> [!failure] x", "\r\n", "\r", "***", "1. z"),
)
#: 300 notes each; `LORAVAULT_LONG=350` makes it the hundred thousand whose figure docs/promises.md gives.
SEEDS = int(os.environ.get("LORAVAULT_LONG", "1"))
KEYS = ("run", "cancel", "lv_status", "lv_message", "lv_job", "lv_cover", "lv_finished")
VALUES = (
    False,
    None,
    "done",
    'it\'s: "quoted" #x',
    "[[LoraVault/Images/x.webp]]",
    "12:30",
    7,
    0.5,
    "日本語 😀",
    "",
    " x ",
)


def wild_note(chance: random.Random) -> bytes:
    """A note in which every line may be the wrong one."""
    front = chance.choice((*FRONTMATTERS, "---\nloravault: generate\nrun: true # go\nlv_message: x\n---\n"))
    lines = "".join(chance.choice(PIECES) + chance.choice(("\n", "\n", "")) for _ in range(chance.randint(0, 14)))
    extra = chance.choice(BLOCKS)(chance) if chance.random() < 0.4 else ""
    text = front + lines + extra
    return (text.replace("\n", "\r\n") if chance.random() < 0.2 else text).encode()


def answers(chance: random.Random, data: bytes, start: int) -> list[Answer]:
    hashes = [fence.block_hash for fence in parse_note(data).prompts] or ["0" * 16]
    made = []
    for number in range(start, start + chance.randint(0, 3)):
        kind = chance.choice(("result", "failure"))
        title = "[!lora-result]+ 1 image" if kind == "result" else "[!failure] No picture"
        lines = (title, *chance.choice(((), ("![[x.webp|256]]",), ("", "two"))))
        made.append(
            Answer(f"j{number}", chance.choice([*hashes, None]), chance.choice((0, 0, 1)), kind, lines, "a cat")
        )
    return made


def changed_bytes(data: bytes, chance: random.Random) -> int | None:
    """Patch a note several times; 1 if a byte of the user's changed, None if every patch was refused."""
    new, done = data, False
    for round_ in range(3):
        given = answers(chance, new, round_ * 10)
        properties = {chance.choice(KEYS): chance.choice(VALUES) for _ in range(chance.randint(0, 3))}
        try:
            new = apply_answers(new, given, properties)
            assert apply_answers(new, given, properties) == new
            done = True
        except EditRefused as refused:
            if "not ours" in refused.message or "broken" in refused.message:
                raise
    return int(strip_ours(new) != strip_ours(data)) if done else None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_byte_of_hundreds_of_notes_stays(seed):
    chance = random.Random(seed)
    outcomes = [changed_bytes(wild_note(chance), chance) for _ in range(250)]
    outcomes += [changed_bytes(make_note(chance, n)[:20_000], chance) for n in range(50)]
    assert outcomes.count(1) == 0
    assert outcomes.count(0) > 200, "too many refusals to mean anything"


def test_teeth_a_dumping_writer_changes_almost_every_note_and_the_harness_sees_it():
    chance = random.Random(1)
    seen = caught = 0
    for number in range(200):
        data = make_note(chance, number)
        front = parse_note(data).frontmatter
        if front is None or front.problem or not front.properties:
            continue
        dumped = yaml.safe_dump({**front.properties, "run": False}).encode()
        seen += 1
        caught += strip_ours(data[: front.yaml_start] + dumped + data[front.yaml_end :]) != strip_ours(data)
    assert seen > 30
    assert caught > seen * 0.8, "the checker is broken"
