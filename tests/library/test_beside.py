"""Which files of a folder belong to which adapter, and which have lost theirs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.library.beside import beside_of, group, orphans
from loravault.library.sidecars import ORDER

EVERY_KIND = (
    "ink.civitai.info", "ink.json", "ink.metadata.json", "ink.metadata.json.bak", "ink.swarm.json", "ink.cm-info.json",
    "ink.api_info.json", "ink.html", "ink.md", "ink.txt", "ink.description.txt", "ink.safetensors.rgthree-info.json",
    "ink.png", "ink.JPG", "ink.preview.png", "ink.preview.mp4", "ink.thumb.jpg", "ink.example.0.jpeg",
    "ink.example.12.png", "INK.webp",
)  # fmt: skip


def test_all_sidecars_and_pictures_belong() -> None:
    others = ("ink2.json", "in.json", "ink.v2.json", "ink", "ink.yaml", "notes.txt", "ink-old.png", "ink.preview.txt")
    assert beside_of("ink.safetensors", (*EVERY_KIND, *others, "ink.safetensors")) == tuple(sorted(EVERY_KIND))


def test_every_sidecar_that_is_read_belongs() -> None:
    for ending in ORDER:
        assert beside_of("x.y.safetensors", [f"x.y{ending}"]) == (f"x.y{ending}",)


def test_only_the_last_ending_is_cut_off_the_name() -> None:
    listing = ["foo.v2.safetensors", "foo.json", "foo.v2.json", "foo.v2.preview.png", "foo.png"]
    assert beside_of("foo.v2.safetensors", listing) == ("foo.v2.json", "foo.v2.preview.png")


def test_a_file_belongs_to_one_adapter_only() -> None:
    """`foo.preview.safetensors` is an odd name, but its picture must not move away with `foo`."""
    listing = ["foo.safetensors", "foo.preview.safetensors", "foo.preview.png", "foo.json", "foo.preview.json"]
    assert group(listing) == {
        "foo.preview.safetensors": ("foo.preview.json", "foo.preview.png"),
        "foo.safetensors": ("foo.json",),
    }
    assert beside_of("foo.safetensors", listing) == ("foo.json",)
    assert beside_of("foo.preview.safetensors", listing) == ("foo.preview.json", "foo.preview.png")


def test_exact_spelling_wins_over_any_case() -> None:
    listing = ["Foo.safetensors", "foo.safetensors", "foo.json", "FOO.png"]
    assert "foo.json" in group(listing)["foo.safetensors"]
    assert "foo.json" not in group(listing)["Foo.safetensors"]
    assert beside_of("Foo.safetensors", ["foo.JSON"]) == ("foo.JSON",)
    assert beside_of("FOO.SAFETENSORS", ["foo.safetensors.rgthree-info.json"]) == ("foo.safetensors.rgthree-info.json",)


def test_names_in_either_form_of_unicode() -> None:
    assert beside_of("e\u0301.safetensors", ["é.json"]) == ("é.json",)


NAMES = st.lists(
    st.builds(
        lambda stem, ending: stem + ending,
        st.sampled_from(["a", "A", "a.b", "a.preview", "ab", "a.json"]),
        st.sampled_from([".safetensors", ".json", ".preview.png", ".png", ".civitai.info", ".example.1.png", ""]),
    ),
    max_size=10,
)


@given(NAMES)
def test_one_at_a_time_gives_the_same_as_all_together(names: list[str]) -> None:
    groups = group(set(names))
    owned = [entry for entries in groups.values() for entry in entries]
    assert len(owned) == len(set(owned))
    for adapter, entries in groups.items():
        assert beside_of(adapter, names) == entries
    assert not set(orphans(names)) & set(owned)


def test_orphans_are_only_what_is_unmistakable() -> None:
    lost = (
        "a.civitai.info", "a.cm-info.json", "a.example.3.png", "a.metadata.json", "a.metadata.json.bak",
        "a.preview.png", "a.safetensors.rgthree-info.json", "a.swarm.json",
    )  # fmt: skip
    anybodys = ("x.json", "x.png", "readme.md", "notes.txt", "x.html", "b.safetensors", "preview.png", ".preview.png")
    assert orphans((*anybodys, *lost)) == lost


@pytest.mark.parametrize(
    "model",
    ["a.safetensors", "A.safetensors", "a.pt", "a.ckpt", "a.gguf", "a.zip", "a.safetensors.part", "a.pt.tmp", "a"],
)  # fmt: skip
def test_what_waits_for_its_model_is_no_orphan(model: str) -> None:
    """Other kinds of models, downloads on their way, and diffusers folders have sidecars too."""
    names = ("a.civitai.info", "a.preview.png", "a.metadata.json")
    assert orphans((*names, model)) == ()
    assert orphans(names) == tuple(sorted(names))


def test_ten_thousand_adapters_in_one_folder_are_grouped_at_once() -> None:
    names = [f"adapter {n}{ending}" for n in range(10_000) for ending in (".safetensors", ".preview.png", ".json")]
    started = time.perf_counter()
    groups = group(names)
    assert time.perf_counter() - started < 2
    assert len(groups) == 10_000
    assert all(len(entries) == 2 for entries in groups.values())
