"""Trigger words worth having, and the form in which a card holds them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.captions import caption_sets, top_captions
from loravault.formats.trigger_words import TriggerGroup, from_captions, from_texts, parse_group, plain_and_groups


def frequency(tags: dict[str, dict[str, int]], images: dict[str, int] | None = None) -> dict[str, str]:
    metadata = {"ss_tag_frequency": json.dumps(tags)}
    if images is not None:
        counted = {name: {"n_repeats": 1, "img_count": count} for name, count in images.items()}
        metadata["ss_dataset_dirs"] = json.dumps(counted)
    return metadata


def words(metadata: dict[str, str]) -> tuple[str, ...]:
    return from_captions(caption_sets(metadata))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        # covering tags, not every tag; common ones are no trigger words
        (frequency({"10_cat": {"sks cat": 20, "1girl": 20, "sofa": 3}}, {"10_cat": 20}), ("sks cat",)),
        (frequency({"10_cat": {"sks cat": 18, "sofa": 17}}, {"10_cat": 20}), ("sks cat",)),
        # nothing covers: what the folder is called
        (frequency({"10_cat": {"1girl": 20, "sofa": 3}}, {"10_cat": 20}), ("cat",)),
        (frequency({"10_img": {"1girl": 20, "looking_at_viewer": 20}}, {"10_img": 20}), ()),
        (frequency({"10_1024": {"sofa": 3}}, {"10_1024": 20}), ()),
        # no captions: the folder's name is the caption
        (frequency({"10_sks woman": {}}, {"10_sks woman": 9}), ("sks woman",)),
        ({"ss_dataset_dirs": '{"10_sks woman": {"n_repeats": 10, "img_count": 9}}'}, ("sks woman",)),
        (frequency({"10_img": {}}), ()),
        (frequency({"10_woman": {}}), ()),
        # as ai-toolkit writes it
        (frequency({"1_ink outline": {"ink outline": 1}}), ("ink outline",)),
        # the word that is the folder's name comes first
        (frequency({"5_my_char": {"red hat": 9, "my char": 9}}, {"5_my_char": 9}), ("my char", "red hat")),
        # captions that occur once each tell nothing, whether or not the number of pictures is known
        (frequency({"1_img": {f"tag {n}": 1 for n in range(30)}}), ()),
        (frequency({"1_img": {f"tag {n}": 1 for n in range(30)}}, {"1_img": 30}), ()),
        (frequency({"1_img": {f"tag {n}": 1 for n in range(30)}}, {"1_img": 1}), ()),
        # several folders, several concepts
        (frequency({"3_red dress": {"sks": 5, "red dress": 5}, "2_coat": {"sks": 4, "coat": 4}}),
         ("red dress: sks, red dress", "coat: sks, coat")),
        (frequency({"3_a": {"x": 5}, "2_b": {"y": 4, "x": 1}}, {"3_a": 5, "2_b": 4}), ("a: x", "b: y")),
        (frequency({"3_a": {}, "2_b": {}}), ("a: a", "b: b")),
        # several folders, one concept
        (frequency({"3_good": {"sks": 5}, "2_best": {"sks": 4}}), ("sks",)),
        ({"ss_tag_frequency": "None"}, ()),
        ({"ss_tag_frequency": "[1,2]"}, ()),
        ({"ss_tag_frequency": "[" * 5000}, ()),
        ({"ss_tag_frequency": '{"a": {"b": "many", "": 3, "d": -1, "e": true}, "c": 5, "f": {"g": 1e999}}'},
         ("a: a", "c: c", "f: f")),
        ({}, ()),
    ],
)  # fmt: skip
def test_words_from_captions(metadata: dict[str, str], expected: tuple[str, ...]) -> None:
    assert words(metadata) == expected


def test_regularisation_pictures_teach_nothing() -> None:
    metadata = frequency({"10_sks dog": {"sks dog": 9}, "1_dog": {"dog": 90}}, {"10_sks dog": 9})
    metadata["ss_reg_dataset_dirs"] = '{"1_dog": {"n_repeats": 1, "img_count": 90}}'
    assert words(metadata) == ("sks dog",)


def test_a_training_by_config_file_tells_class_words_in_its_subsets() -> None:
    subset = {
        "img_count": 12,
        "num_repeats": 4,
        "image_dir": "/data/mine/train",
        "class_tokens": "sks robot",
        "is_reg": False,
    }
    reg = {"img_count": 50, "num_repeats": 1, "image_dir": "robots", "class_tokens": "robot", "is_reg": True}
    datasets = [{"resolution": [768, 768], "subsets": [subset, reg], "tag_frequency": {"train": {"sofa": 2}}}]
    sets = caption_sets({"ss_datasets": json.dumps(datasets)})
    assert [(one.name, one.images, one.repeats) for one in sets] == [("train", 12, 4)]
    assert from_captions(sets) == ("sks robot",)


def test_captions_in_sentences_give_the_phrase_they_share() -> None:
    places = ["sofa", "beach", "street", "table", "boat", "tower", "hill", "field", "shop", "train"]
    for phrase, lead in (("zkx dog", "a photo of a zkx dog"), ("inkwash style", "a harbour in inkwash style")):
        tags = {f"{lead} on the {place} at {n} in the evening": 1 for n, place in enumerate(places)}
        assert words(frequency({"10_img": tags}, {"10_img": 10})) == (phrase,)
    different = {f"{place} and {n} other things of that kind": 1 for n, place in enumerate(places)}
    assert "sofa" not in " ".join(words(frequency({"10_img": different}, {"10_img": 10})))


def test_words_of_strangers_are_one_short_line_without_control_characters() -> None:
    assert from_texts(["a\nb\u202e\x00c"]) == ("a bc",)
    assert from_texts("x" * 101) == ()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (" sks style ,, ink, Sks Style", ("sks style", "ink")),
        (["sks woman", "red dress"], ("sks woman", "red dress")),
        (["sks woman, red dress"], ("sks woman", "red dress")),
        (["sks, red dress, hat", "sks, coat"], ("red dress: sks, red dress, hat", "coat: sks, coat")),
        (["sks, hat", "hat, sks"], ("sks 1: sks, hat", "hat 2: hat, sks")),
        (["sks", "a, red dress", "b, coat"], ("sks", "a: a, red dress", "b: b, coat")),
        ("sks, hat || sks, coat || sks, hat", ("hat: sks, hat", "coat: sks, coat")),
        ("<lora:x:0.8> sks, hat", ("sks", "hat")),
        (["(sks:1.2)"], ("(sks:1.2)",)),
        (["artist: me"], ("artist: artist: me",)),
        ([None, 5, {}, "", "None"], ()),
        (None, ()),
        ({"a": 1}, ()),
    ],
)
def test_words_from_other_tools(texts: Any, expected: tuple[str, ...]) -> None:
    assert from_texts(texts) == expected


def test_a_card_entry_is_plain_or_a_named_group() -> None:
    assert parse_group("red dress: sks woman, red dress") == TriggerGroup("red dress", ("sks woman", "red dress"))
    assert parse_group("sks woman, hat") == TriggerGroup(None, ("sks woman", "hat"))
    assert parse_group("(sks:1.2)") == TriggerGroup(None, ("(sks:1.2)",))
    assert parse_group("name:") == TriggerGroup(None, ("name:",))
    assert parse_group("") == TriggerGroup(None, ())
    assert parse_group("red dress: sks").prompt == "sks"
    always, groups = plain_and_groups(["sks", "red: sks, red", "hat, sks"])
    assert (always, [group.name for group in groups]) == (("sks", "hat"), ["red"])


@given(st.text("ab \t\u00a0-é", max_size=8))
def test_an_entry_without_commas_and_colons_is_one_phrase(text: str) -> None:
    """A shortcut for nearly all of them: with a comma behind it nothing else comes out."""
    assert parse_group(text) == parse_group(f"{text},")


def test_a_phrase_that_looks_like_a_group_keeps_its_beginning() -> None:
    """`artist: me` would be read as the group "artist", and the prompt would lose its first word."""
    (entry,) = from_texts(["artist: me"])
    assert parse_group(entry).prompt == "artist: me"


@given(st.lists(st.text(max_size=30) | st.none() | st.integers(), max_size=6))
def test_what_goes_onto_a_card_comes_back(texts: list[Any]) -> None:
    for entry in from_texts(texts):
        group = parse_group(entry)
        assert group.words
        assert group.text == entry or TriggerGroup(None, group.words).text == entry


SETS = st.dictionaries(
    st.text(max_size=8), st.dictionaries(st.text("ab ,:_", max_size=8), st.integers(-1, 5), max_size=6) | st.none()
)


@given(SETS, st.dictionaries(st.text(max_size=8), st.dictionaries(st.sampled_from(["img_count"]), st.integers(-1, 9))))
def test_no_captions_raise_and_every_entry_can_be_read(tags: dict[str, Any], folders: dict[str, Any]) -> None:
    found = words({"ss_tag_frequency": json.dumps(tags), "ss_dataset_dirs": json.dumps(folders)})
    assert len(found) <= 32
    assert all(parse_group(entry).words for entry in found)


def test_the_commonest_captions_are_kept_for_the_search() -> None:
    sets = caption_sets(frequency({"1_a": {"x": 3, "y": 1, "z" * 101: 9}, "1_b": {"x": 2, "w": 1}}))
    assert top_captions(sets) == (("x", 5), ("y", 1), ("w", 1))
    assert len(top_captions(caption_sets(frequency({"1_a": {f"t{n}": n + 1 for n in range(500)}})))) == 64


def test_a_large_set_of_captions_takes_milliseconds() -> None:
    tags = {f"sks dog number {n} stands somewhere on a wide green field near the sea at noon": 1 for n in range(8000)}
    metadata = frequency({"1_img": tags}, {"1_img": 8000})
    started = time.perf_counter()
    assert any("sks dog" in word for word in words(metadata))
    assert time.perf_counter() - started < 0.5
