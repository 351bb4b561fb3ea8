"""Model folders of other programs are found as they lay them out, and only folders that exist are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.errors import UserError
from loravault.library.otheruis import find_ui


def folders(root: Path, *rels: str) -> None:
    for rel in rels:
        (root / rel).mkdir(parents=True)


def test_a1111_and_forge(tmp_path: Path) -> None:
    folders(
        tmp_path,
        "models/Stable-diffusion",
        "models/Lora",
        "models/LyCORIS",
        "models/VAE",
        "embeddings",
        "extensions/sd-dynamic-prompts/wildcards",
    )

    found = find_ui(tmp_path)

    assert found.program == "A1111"
    assert found.loras == (tmp_path / "models/Lora", tmp_path / "models/LyCORIS")
    assert found.checkpoints == (tmp_path / "models/Stable-diffusion",)
    assert found.vaes == (tmp_path / "models/VAE",)
    assert found.embeddings == (tmp_path / "embeddings",)
    assert found.wildcards == (tmp_path / "extensions/sd-dynamic-prompts/wildcards",)


def test_comfyui(tmp_path: Path) -> None:
    folders(tmp_path, "models/checkpoints", "models/loras", "models/vae", "models/embeddings")

    found = find_ui(tmp_path)

    assert (found.program, found.loras) == ("ComfyUI", (tmp_path / "models/loras",))
    assert found.wildcards == ()


def test_a_portable_package_has_the_program_one_level_down(tmp_path: Path) -> None:
    folders(tmp_path, "ComfyUI/models/checkpoints", "ComfyUI/models/loras")

    assert find_ui(tmp_path).loras == (tmp_path / "ComfyUI/models/loras",)


EXTRA = """\
# comments and odd indentation are common here
a111:
    base_path: sd/webui

    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS
    vae: models/VAE
other:
    loras: {absolute}
    custom_nodes: elsewhere
empty:
broken: 3
"""


def test_extra_model_paths(tmp_path: Path) -> None:
    folders(tmp_path, "sd/webui/models/Lora", "sd/webui/models/LyCORIS", "big drive/loras")
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(EXTRA.replace("{absolute}", str(tmp_path / "big drive" / "loras")), "utf-8")

    found = find_ui(file)

    assert found.program == "extra_model_paths.yaml"
    assert found.loras == (
        tmp_path / "sd/webui/models/Lora",
        tmp_path / "sd/webui/models/LyCORIS",
        tmp_path / "big drive/loras",
    )
    assert (found.checkpoints, found.vaes) == ((), ())  # named there, but no such folders


def test_the_extra_file_beside_comfyui_is_read_too_and_a_folder_counts_once(tmp_path: Path) -> None:
    folders(tmp_path, "models/checkpoints", "models/loras", "more")
    (tmp_path / "link").symlink_to(tmp_path / "models" / "loras")
    (tmp_path / "extra_model_paths.yaml").write_text("x:\n  loras: |\n    more\n    link\n", "utf-8")

    assert find_ui(tmp_path).loras == (tmp_path / "models/loras", tmp_path / "more")


def test_variables_and_home_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", str(tmp_path / "m"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folders(tmp_path, "m/l", "h")
    (tmp_path / "e.yaml").write_text("a:\n  base_path: $MODELS\n  loras: l\nb:\n  base_path: ~/\n  loras: h\n", "utf-8")

    assert find_ui(tmp_path / "e.yaml").loras == (tmp_path / "m/l", tmp_path / "h")


@pytest.mark.parametrize(("text", "part"), [("a: [b\n", "cannot be read as YAML"), ("x" * 70_000, "too large")])
def test_a_bad_file_is_told(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "e.yaml").write_text(text, "utf-8")

    with pytest.raises(UserError, match=part):
        find_ui(tmp_path / "e.yaml")


def test_something_else_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name the folder with the LoRAs by --loras"):
        find_ui(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        find_ui(tmp_path / "gone")


def test_what_may_not_be_looked_at_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path, "models/checkpoints", "models/loras", "models/vae")
    (tmp_path / "extra_model_paths.yaml").write_text("a:\n  loras: x\n")
    real = os.stat

    def stat(path: str | Path, **options: object) -> object:
        if str(path).endswith(("models/loras", "paths.yaml")):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    found = find_ui(tmp_path)
    assert (found.loras, found.vaes) == ((), (tmp_path / "models/vae",))


def test_an_extra_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text("a:\n  loras: x\n")

    def read_text(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        find_ui(file)


def test_the_parts_of_bases_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    """Whoever has a Flux.1 for ComfyUI has it in four files in three folders."""
    folders(tmp_path, "models/checkpoints", "models/unet", "models/text_encoders", "models/vae", "models/loras")
    found = find_ui(tmp_path)
    assert found.for_bases == tuple(
        tmp_path / "models" / name for name in ("checkpoints", "unet", "text_encoders", "vae")
    )
