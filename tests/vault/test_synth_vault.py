"""The crowd of ordinary notes is what it claims to be."""

from __future__ import annotations

import unicodedata

from loravault.vault.note import might_be_request, parse_note
from tests.synth_vault import make_notes, snapshot, write_vault


def test_the_same_seed_gives_the_same_notes_and_another_seed_others():
    assert make_notes(60, seed=3) == make_notes(60, seed=3)
    assert make_notes(60, seed=3) != make_notes(60, seed=4)


def test_five_hundred_notes_show_every_oddity_and_none_is_a_request():
    notes = [(path, data, parse_note(data)) for path, data in make_notes(500)]
    assert len({unicodedata.normalize("NFC", path).casefold() for path, _, _ in notes}) == 500
    assert not [path for path, _, note in notes if note.frontmatter and "loravault" in note.frontmatter.properties]
    assert any(b"loravault" in data.lower() for _, data, _ in notes), "some only mention loravault"
    assert not any(might_be_request(data) for _, data, _ in notes)
    for oddity in (
        lambda path, data, note: note.bom,
        lambda path, data, note: b"\r\n" in data and b"\n" in data.replace(b"\r\n", b""),
        lambda path, data, note: note.eol == b"\r\n",
        lambda path, data, note: path != unicodedata.normalize("NFC", path),
        lambda path, data, note: note.frontmatter is not None and note.frontmatter.problem,
        lambda path, data, note: note.text_problem and "UTF-8" in note.text_problem,
        lambda path, data, note: note.text_problem and "NUL" in note.text_problem,
        lambda path, data, note: note.text_problem and "conflict" in note.text_problem,
        lambda path, data, note: note.prompts,
        lambda path, data, note: any(f.container == "list" for f in note.fences),
        lambda path, data, note: any(f.container == "quote" for f in note.fences),
        lambda path, data, note: note.regions and not note.regions[0].intact,
        lambda path, data, note: len(data) > 200_000,
        lambda path, data, note: data == b"",
        lambda path, data, note: data and not data.endswith((b"\n", b"\r")),
    ):
        assert any(oddity(*entry) for entry in notes)


def test_a_written_vault_reads_back_byte_for_byte(tmp_path):
    written = write_vault(tmp_path, 60, seed=1)
    assert dict(snapshot(tmp_path)) == written
