"""Entries for tests of cards: one that knows everything, one that knows nothing, and whatever strangers may write."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from loravault.library.entry import Entry, Place
from loravault.pages.cards import CardNames

DAY_NS = 1763600000 * 10**9
COVER = "LoraVault/Images/Covers/lv-cover-0123456789abcdef-aaaabbbb.webp"
NAMES = CardNames("LoraVault", "My vault", "LoraVault/LoRAs/Styles/ink_outline.md", "ink_outline", COVER)


def entry(**changes: Any) -> Entry:
    """An adapter of which little is known."""
    values: dict[str, Any] = {
        "weight_id": "w1-0123456789abcdef",
        "name": "ink_outline",
        "places": (Place("loras", "Styles/ink_outline.safetensors", "ok", 217_940_000, DAY_NS),),
        "state": "ok",
        "family": "sdxl",
        "variant": None,
        "network": None,
        "rank": None,
        "alpha": None,
        "title": None,
        "trigger_words": (),
    }
    return Entry(**{**values, **changes})


def full_entry() -> Entry:
    """An adapter of which everything is known, by people who mean no good."""
    return entry(
        places=(
            Place("loras", "Styles/ink_outline.safetensors", "ok", 217_940_000, DAY_NS),
            Place("old drive", "Backup/[ink] copy.safetensors", "duplicate", 217_940_000, DAY_NS + 10**15),
            Place("gone", "ink.safetensors", "missing", 217_940_000, DAY_NS - 10**15),
        ),
        variant="pony",
        network="lora",
        rank=16,
        alpha=8.0,
        title="Ink Outline",
        trigger_words=("sks style", "red dress: sks woman, red dress"),
        weight=1.0,
        negative="color, <% tp.file.delete() %>",
        topics=("ink", "line art", "[[link]]"),
        rating=4,
        favourite=True,
        hashed=True,
        sha256="1234567890" * 6 + "1234",
        autov2="12345e6789",
        autov3=None,
        facts={
            "version": "v2",
            "author": "mira ![[x]]",
            "description": "A <% evil %> style.\n\nUse [[it]] at 0.8, ```not``` more. #nice\n---\n- really",
            "license": "CC-BY-4.0",
            "urls": ["https://example.org/ink?a=1", "javascript:alert(1)", "https://e.org/(x)[y]"],
            "civitai_model": 1234,
            "civitai_version": 5678,
            "sample_prompts": ["<lora:other:1> a lighthouse, `ink`, \\(sea\\) <% evil %>\nBREAK night"],
            "captions": [["ink", 24], ["a|b", 20], ["a lighthouse", 12]],
            "training": {"images": 24, "repeats": 10, "steps": 2400, "date": "2026-11-01", "unet_lr": 0.0001,
                         "resolution": "1024×1024", "trainer": "sd-scripts", "unknown_key": 1},
            "warnings": ["ink_outline.json cannot be read: it is not valid JSON."],
            "notes": "works best\nwith 0.8",
        },
    )  # fmt: skip


_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40) | st.sampled_from(
    ["<% x %>", "[[y]]", "```", "---", "# h", "> q", "^lv-cover-abcdef", "{{date}}", "%%", "a: b", "12345e67", "true",
     "", "\\(x\\)", "Steps: 20, Sampler: Euler, Seed: 1", "Negative prompt: x", "#| count: 9", "<lora:a:1>", "a\nb"]
)  # fmt: skip
_TEXTS = st.lists(_TEXT, max_size=3)


def entries() -> st.SearchStrategy[Entry]:
    """Any adapter that a stranger could make."""
    facts = st.fixed_dictionaries(
        {},
        optional={
            "version": _TEXT, "author": _TEXT, "description": _TEXT, "license": _TEXT, "urls": _TEXTS,
            "civitai_model": st.integers(1, 10**9), "civitai_version": st.integers(1, 10**9),
            "sample_prompts": _TEXTS, "warnings": _TEXTS, "notes": _TEXT,
            "captions": st.lists(st.tuples(_TEXT, st.integers(1, 99)).map(list), max_size=3),
            "training": st.fixed_dictionaries({}, optional={"steps": st.integers(1, 9), "comment": _TEXT}),
        },
    )  # fmt: skip
    name = _TEXT.map(lambda text: text.replace("/", "").replace("\0", "") or "x")
    return st.builds(
        entry,
        name=name,
        places=st.tuples(
            st.builds(Place, st.just("loras"), name.map(lambda n: f"a/{n}.safetensors"), st.just("ok"),
                      st.integers(0, 10**11), st.just(DAY_NS))
        ),
        family=st.sampled_from(["sdxl", "demo", "unknown", "flux"]),
        variant=st.none() | _TEXT,
        network=st.none() | st.just("lora"),
        rank=st.none() | st.integers(1, 512),
        title=st.none() | _TEXT,
        trigger_words=_TEXTS.map(tuple),
        weight=st.none() | st.floats(-2, 2).map(lambda w: round(w, 2)),
        negative=st.none() | _TEXT,
        topics=_TEXTS.map(tuple),
        rating=st.none() | st.integers(0, 5),
        favourite=st.booleans(),
        sha256=st.none() | st.just("1" * 64),
        autov2=st.none() | st.sampled_from(["12345e6789", "1234567890", "abcdef0123"]),
        facts=facts,
    )  # fmt: skip
