"""The `.base` files: YAML that Bases can read, made of nothing that the reference does not list, and ours by a sum."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from loravault import resources
from loravault.pages import bases

#: Everything below is what Obsidian's documentation and release notes list for 1.10.
TOP = {"filters", "formulas", "properties", "summaries", "views"}
VIEW = {"type", "name", "filters", "order", "sort", "limit", "groupBy"}
CARDS = {"image", "cardSize", "imageFit", "imageAspectRatio"}
FILE = {
    "name", "basename", "path", "folder", "ext", "size", "ctime", "mtime", "tags", "links", "embeds",
    "properties", "file",
}  # fmt: skip
FUNCTIONS = {"if", "inFolder", "matches", "contains", "hasTag", "hasLink"}
#: Keys of cards and requests (design, 4.1 and 4.4).
CARD_KEYS = {
    "loravault", "lora", "lora_file", "copies", "category", "family", "network", "rank", "size_mb", "sha256",
    "autov2", "autov3", "civitai", "added", "state", "variant", "base", "trigger_words", "weight", "negative",
    "topics", "tags", "aliases", "rating", "favourite", "cover",
}  # fmt: skip
REQUEST_KEYS = {
    "loravault", "run", "cancel", "auto", "base", "loras", "lv_status", "lv_job", "lv_finished", "lv_message",
    "lv_cover",
}  # fmt: skip
KEYS = {"LoRAs.base": CARD_KEYS, "Requests.base": REQUEST_KEYS, "Images.base": set[str]()}


def read(name: str, **options: Any) -> dict[str, Any]:
    data = bases.render(name, "LoraVault", resources.templates(), **options)
    parsed = yaml.safe_load(data)
    assert isinstance(parsed, dict)
    return parsed


def expressions(filters: Any) -> list[str]:
    if isinstance(filters, str):
        return [filters]
    assert isinstance(filters, dict)
    assert len(filters) == 1
    assert set(filters) <= {"and", "or", "not"}
    return [text for some in filters.values() for one in some for text in expressions(one)]


def check_property(name: str, found: str) -> None:
    kind, _, rest = found.partition(".")
    assert (kind == "file" and rest in FILE) or (kind == "note" and rest in KEYS[name]), found


def check_expression(name: str, text: str) -> None:
    """Words of an expression, strings and regexps apart: functions, `file.x`, or properties of the note."""
    bare = re.sub(r'"[^"]*"|/\^[^/]*/', "", text)
    for word in re.findall(r"[a-z_]+(?:\.[a-zA-Z_]+)*(?=\()|[a-zA-Z_]+(?:\.[a-zA-Z_]+)*", bare):
        if re.search(rf"{re.escape(word)}\(", bare):
            assert word.rpartition(".")[2] in FUNCTIONS, text
        elif word.startswith("file."):
            assert word[5:] in FILE, text
        else:
            assert word in {"true", "false"} or word.removesuffix(".length") in KEYS[name], text


@pytest.mark.parametrize("options", [{}, {"in_folder": False}])
@pytest.mark.parametrize("name", bases.NAMES)
def test_a_base_uses_only_what_obsidian_knows_and_we_write(name: str, options: dict[str, Any]) -> None:
    base = read(name, **options)
    assert set(base) <= TOP
    for text in expressions(base["filters"]):
        check_expression(name, text)
    for found in base["properties"]:
        check_property(name, found)
    for view in base["views"]:
        assert view["type"] in {"table", "cards"}
        assert set(view) <= VIEW | (CARDS if view["type"] == "cards" else set())
        assert view.get("imageFit", "cover") in {"cover", "contain"}
        assert 0.25 <= view.get("imageAspectRatio", 1) <= 2.5
        assert all(one["direction"] in {"ASC", "DESC"} for one in view["sort"])
        group = [view["groupBy"]["property"]] if "groupBy" in view else []
        image = [view["image"]] if "image" in view else []
        for found in [*view["order"], *group, *image, *(one["property"] for one in view["sort"])]:
            check_property(name, found)
        for text in expressions(view["filters"]) if "filters" in view else ():
            check_expression(name, text)
    names = [view["name"] for view in base["views"]]
    assert len(names) == len(set(names))


def test_the_first_views_are_what_the_files_are_for() -> None:
    """An embedded base shows its first view."""
    loras, requests, images = (read(name)["views"] for name in bases.NAMES)
    assert (loras[0]["type"], loras[0]["image"], loras[0]["groupBy"]["property"]) == (
        "cards",
        "note.cover",
        "note.family",
    )
    assert requests[0]["order"][0] == "note.run", "the checkbox that starts a request comes first"
    assert (images[0]["image"], images[0]["order"]) == ("file.file", [])
    assert {"Needs review", "Missing or broken", "All properties"} <= {view["name"] for view in loras}
    everything = next(view for view in loras if view["name"] == "All properties")
    assert {found.partition(".")[2] for found in everything["order"]} == (CARD_KEYS - {"loravault"}) | {"name"}


def test_covers_are_not_among_the_pictures() -> None:
    texts = expressions(read("Images.base")["filters"])
    assert 'file.inFolder("LoraVault/Images")' in texts
    assert '!file.inFolder("LoraVault/Images/Covers")' in texts
    pattern = expressions(read("Images.base", in_folder=False)["filters"])[0]
    regexp = re.match(r"/(.*)/\.matches", pattern)
    assert regexp is not None
    assert re.search(regexp[1], "lv-20261118-101503-3fa81c20-1.webp")
    assert not re.search(regexp[1], "lv-cover-0011223344556677-00112233.webp")


@pytest.mark.parametrize("name", bases.NAMES)
def test_a_base_is_ours_until_somebody_changes_it(name: str) -> None:
    data = bases.render(name, "Meine LoRAs", resources.templates())
    assert bases.is_ours(data)
    assert bases.is_ours(data.replace(b"\n", b"\r\n")), "a sync tool may change line ends"
    assert not bases.is_ours(data.replace(b"ASC", b"DESC", 1) if b"ASC" in data else data + b" ")
    assert not bases.is_ours(data.partition(b"\n")[2]), "Obsidian drops the comment when a view is changed"
    assert not bases.is_ours(b"")
    assert b'"Meine LoRAs/' in data


def test_an_older_version_of_ours_is_ours() -> None:
    """So that an upgrade reaches everybody who has not changed the file."""
    assert bases.is_ours(bases.seal("views:\n  - type: table\n    name: Old\n"))
