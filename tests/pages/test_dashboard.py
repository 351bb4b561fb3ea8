"""The dashboard, as text; and pages that know whether they are still ours."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from loravault import resources
from loravault.pages import own
from loravault.pages.dashboard import Dashboard, Library, NoteLine, QueueLine, new_picture_uri, render

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
        running=(QueueLine("Pictures/Cat.md", "a red cat", "step 7 of 25"),),
        waiting=(QueueLine("Pictures/Dog.md", "a dog"),),
        failures=(NoteLine("Pictures/Bad.md", 'There is no LoRA "x".', "20 Nov 18:00"),),
        skipped=(NoteLine("T/Template.md", "it is in a template folder."),),
        troubles=("The loras folder is not there.",),
        library=Library(adapters=3, families={"demo": 2, "sdxl": 1}, images=7, broken=1),
    )
    assert "- ▶ [[Pictures/Cat|Cat]]: a red cat · step 7 of 25" in text
    assert "- [[Pictures/Dog|Dog]]: a dog" in text
    assert '- [[Pictures/Bad|Bad]] (20 Nov 18:00): There is no LoRA "x".' in text
    assert "- [[T/Template|Template]]: it is in a template folder." in text
    assert "> [!warning] The loras folder is not there." in text
    assert "\n3 LoRAs (2 demo, 1 sdxl) · 1 broken · 7 pictures made\n" in text


def test_failures_that_are_not_named_are_counted() -> None:
    text = page(failures=(NoteLine("Bad.md", "no base", "20 Nov"),), failures_more=9)
    assert "- [[Bad|Bad]] (20 Nov): no base\n- and 9 more\n" in text
    assert "more" not in page(failures=(NoteLine("Bad.md", "no base", "20 Nov"),))


def test_a_page_that_stands_in_says_so_first() -> None:
    text = page(instead_of="LoraVault/LoraVault.md")
    warning = text.index("> [!warning] [[LoraVault/LoraVault|LoraVault]] was edited")
    assert warning < text.index("Running on")
    assert "was edited" not in page()


def test_the_library_of_a_healthy_vault_is_two_lines() -> None:
    library = Library(adapters=1200, families={"sdxl": 1200}, images=1, links=("F/LoRAs.base", "F/Gallery/All.md"))
    text = page(library=library)
    assert text.partition("## Library\n")[2] == (
        "\n[[F/LoRAs.base|LoRAs]] · [[F/Gallery/All|All]]\n\n1,200 LoRAs (1,200 sdxl) · 1 picture made\n"
    )


def test_what_is_done_for_the_library_and_what_is_wrong_in_it_is_told() -> None:
    library = Library(
        adapters=2,
        copies=1,
        incomplete=2,
        missing=3,
        wordless=4,
        hashing=(1123, 4000, 12),
        covers_due=1,
        unusable=("loras/a.safetensors: it is [[empty]]", "and 3 more"),
        uncovered=(NoteLine("F/LoRAs/Ink.md", "ink.png: it is damaged"), NoteLine("", "x.mp4: it is a video")),
        uncovered_more=2,
        pickles=("loras/old.pt", "loras/<% evil %>.ckpt", "and 1 more"),
        elsewhere=("loras/nas (to /mnt/[[nas]])", "and 2 more"),
    )
    text = page(library=library, skipped=(NoteLine("A.md", "why"),), skipped_more=1234)
    assert text.partition("## Library\n")[2] == (
        "\n2 LoRAs · 1 copy · 2 incomplete · 3 missing · 4 without trigger words · 0 pictures made\n"
        "\nHashing: 1,123 of 4,000 files, 12 % · 1 cover to make\n"
        "\n### Files that cannot be used\n\n- loras/a.safetensors: it is [ [empty] ]\n- and 3 more\n"
        "\n### Pictures that cannot be shown\n\n- [[F/LoRAs/Ink|Ink]]: ink.png: it is damaged\n"
        "- x.mp4: it is a video\n- and 2 more\n"
        "\nLeft alone, because opening them can run code: loras/old.pt, loras/< % evil % >.ckpt, and 1 more.\n"
        "\nLinks that lead out of your LoRA folders are not followed: loras/nas (to /mnt/[ [nas] ]), and 2 more. "
        "To have what lies there, add its folder: `loravault init VAULT --loras FOLDER`.\n"
    )
    assert "- [[A|A]]: why\n- and 1,234 more\n" in text


def test_prompts_cannot_run_anything_on_the_dashboard() -> None:
    text = page(waiting=(QueueLine("a.md", "<%* await evil() %> `= this` ![[secret]]"),))
    assert "<%" not in text
    assert "![[secret]]" not in text


def test_the_new_picture_link_makes_a_request_of_the_named_vault() -> None:
    uri = new_picture_uri("My Vault & Co")
    assert uri.startswith("obsidian://new?vault=My%20Vault%20%26%20Co&")
    assert unquote(uri.split("content=")[1]) == "---\nloravault: generate\nrun: false\n---\n\n```prompt\n\n```\n"


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
