"""A region knows whether it is still as we wrote it."""

from __future__ import annotations

import pytest

from loravault.vault.note import parse_note
from loravault.vault.regions import checksum, refold, render_region

LINES = ("[!lora-result]+ 4 images · seed 42–45", "![[a.webp|256]] ![[b.webp|256]]", "", "quiet words")
BLOCK = "```prompt\na cat\n```\n"


def only(text: str):
    (region,) = parse_note(text.encode()).regions
    return region


def test_a_region_looks_as_the_contract_says():
    text = render_region(LINES[:2], "3fa81c20@desk")
    assert text == f"> {LINES[0]}\n> {LINES[1]}\n\n^lv-3fa81c20-{checksum(LINES[:2])}"


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("spaced", [True, False])
def test_what_we_write_reads_back_intact_whatever_the_line_ends(eol, spaced):
    written = render_region(LINES, "3fa81c20", eol, spaced=spaced)
    text = (BLOCK + "\n").replace("\n", eol) + written + eol + "after"
    region = only(text)
    assert (region.intact, region.kind, region.job, region.folded) == (True, "result", "3fa81c20", False)
    assert (region.lines, region.spaced, region.fence_index) == (LINES, spaced, 0)
    assert text.encode()[region.start : region.end].decode() == written


def test_converted_line_ends_leave_a_region_intact_and_folding_keeps_its_block_id():
    text = BLOCK + "\n" + render_region(LINES, "a1") + "\n"
    assert only(text.replace("\n", "\r\n")).intact
    folded = BLOCK + "\n" + render_region(refold(LINES, "-"), "a1") + "\n"
    assert only(folded).folded
    assert only(folded).checksum == only(text).checksum


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.replace("|256", "|420", 1),
        lambda t: t.replace(" ![[b.webp|256]]", ""),
        lambda t: t.replace("quiet words", "quiet words "),
        lambda t: t.replace("> quiet", ">  quiet"),
        lambda t: t.replace("> quiet", "> a caption\n> quiet"),
        lambda t: t.replace("> [!lora", "> my words\n> [!lora"),
        lambda t: t.replace("[!lora-result]", "[!note]"),
        lambda t: t.replace("words\n\n^", "words\n\n\n^"),
        lambda t: t.replace("words\n\n^", "words\n^"),
        lambda t: t.replace("words\n\n^", "words\n\n> mine\n\n^"),
    ],
)
def test_an_edited_region_is_the_users(edit):
    text = BLOCK + "\n" + render_region(LINES, "a1") + "\n"
    assert only(text).intact
    edited = edit(text)
    assert edited != text
    assert not only(edited).intact


def test_a_block_id_whose_callout_was_deleted_still_says_which_job_was_answered():
    text = BLOCK + "\n" + render_region(LINES, "a1") + "\n"
    region = only(text[: text.index("> ")] + text[text.index("^lv") :])
    assert (region.job, region.intact, region.lines) == ("a1", False, ())


def test_a_callout_whose_block_id_was_deleted_is_no_region():
    text = BLOCK + "\n" + render_region(LINES, "a1")
    assert parse_note(text[: text.index("\n^lv")].encode()).regions == ()


def test_a_region_quoted_in_a_code_block_is_only_text():
    text = "```md\n" + render_region(LINES, "a1") + "\n```\n"
    assert parse_note(text.encode()).regions == ()


def test_a_code_block_inside_a_region_is_no_block_of_the_user():
    text = BLOCK + "\n" + render_region(["[!failure] x", "```prompt", "a cat", "```"], "a1") + "\n"
    note = parse_note(text.encode())
    assert [fence.ordinal for fence in note.prompts] == [0]
    assert note.regions[0].kind == "failure"


def test_a_callout_of_the_user_directly_below_belongs_to_nobody_else():
    text = BLOCK + "\n" + render_region(LINES, "a1") + "\n\n> [!note] mine\n> text\n"
    assert only(text).intact


@pytest.mark.parametrize(
    ("lines", "job"),
    [
        ((), "a"),
        (("no title",), "a"),
        (("[!failure] x", "a\nb"), "a"),
        (("[!failure] x",), "a b"),
        (("[!failure]x",), "a"),
    ],
)
def test_what_could_not_be_read_back_is_never_written(lines, job):
    with pytest.raises(ValueError, match=r"region|line|job"):
        render_region(lines, job)
