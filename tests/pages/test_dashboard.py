"""The dashboard, as text; and pages that know whether they are still ours."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from loravault import resources
from loravault.pages import own
from loravault.pages.dashboard import NEW_PICTURE, Dashboard, NoteLine, QueueLine, new_picture_uri, render

EMPTY = Dashboard(heartbeat="running", when="2026-11-20 18:15", machine="atelier", device="cpu", vault_name="My Vault")


def page(**changes: object) -> str:
    return render(Dashboard(**{**vars(EMPTY), **changes}), resources.templates())  # type: ignore[arg-type]


def test_an_empty_queue_says_what_to_do() -> None:
    text = page()
    assert "Running on **atelier** (cpu) · 2026-11-20 18:15" in text
    assert "Nothing waits. Tick `run`" in text
    assert "## Last failures" not in text


def test_it_shows_what_runs_waits_failed_and_needs_the_user() -> None:
    text = page(
        running=QueueLine("Pictures/Cat.md", "a red cat", "step 7 of 25"),
        waiting=(QueueLine("Pictures/Dog.md", "a dog"),),
        failures=(NoteLine("Pictures/Bad.md", 'There is no adapter "x".', "20 Nov 18:00"),),
        skipped=(NoteLine("T/Template.md", "it is in a template folder."),),
        troubles=("The loras folder is not there.",),
        adapters=3,
        families={"demo": 2, "sdxl": 1},
        images=7,
        broken=1,
    )
    assert "- ▶ [[Pictures/Cat|Cat]]: a red cat · step 7 of 25" in text
    assert "- [[Pictures/Dog|Dog]]: a dog" in text
    assert '- [[Pictures/Bad|Bad]] (20 Nov 18:00): There is no adapter "x".' in text
    assert "- [[T/Template|Template]]: it is in a template folder." in text
    assert "> [!warning] The loras folder is not there." in text
    assert "3 adapters (2 demo, 1 sdxl) · 7 pictures made · 1 broken files" in text


def test_prompts_cannot_run_anything_on_the_dashboard() -> None:
    text = page(waiting=(QueueLine("a.md", "<%* await evil() %> `= this` ![[secret]]"),))
    assert "<%" not in text
    assert "![[secret]]" not in text


def test_the_new_picture_link_makes_a_request_of_the_named_vault() -> None:
    uri = new_picture_uri("My Vault & Co")
    assert uri.startswith("obsidian://new?vault=My%20Vault%20%26%20Co&")
    assert unquote(uri.split("content=")[1]) == NEW_PICTURE


def test_a_sealed_page_is_ours_until_a_byte_of_it_changes() -> None:
    sealed = own.seal(page())
    assert own.is_ours(sealed)
    assert own.is_ours(sealed.replace(b"\n", b"\r\n")), "a sync tool may change line ends"
    assert not own.is_ours(sealed.replace(b"Nothing waits", b"Nothing wails"))
    assert not own.is_ours(sealed + b"my own remark\n")
    assert not own.is_ours(page().encode())


def test_only_pages_with_properties_can_be_sealed() -> None:
    with pytest.raises(ValueError, match="frontmatter"):
        own.seal("# no properties\n")
