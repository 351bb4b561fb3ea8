"""The wheel is complete: built, installed into a fresh environment and used there, far away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from loravault import resources

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that has the wheel and, from here, only what it depends on."""
    place = tmp_path_factory.mktemp("env")
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    site = next((place / "lib").glob("python*")) / "site-packages"
    # After the environment's own packages; our checkout's editable hook is a .pth there, which is not read from here.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
    return python


def run(python: Path, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(python), *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_every_data_file_byte_for_byte(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}

    for where, folder in (
        ("loravault/data/templates", CHECKOUT / "templates"),
        ("loravault/data/example_vault", CHECKOUT / "examples" / "vault"),
        ("loravault/data/demo_base", resources.demo_base()),
        ("loravault/data/demo_adapters", resources.demo_adapters()),
    ):
        expected = files_below(folder)
        assert expected
        assert {name: inside.get(f"{where}/{name}") for name in expected} == expected
    assert "loravault/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_installed_package_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    place = run(installed, "-c", "import loravault; print(loravault.__file__)", cwd=tmp_path).strip()

    assert not Path(place).is_relative_to(CHECKOUT)


def test_installed_data_is_the_checkouts_data(installed: Path, tmp_path: Path) -> None:
    code = "from loravault import resources as r; print(r.templates(), r.example_vault(), sep='\\n')"
    templates, vault = run(installed, "-c", code, cwd=tmp_path).splitlines()

    assert not Path(templates).is_relative_to(CHECKOUT)
    assert files_below(Path(templates)) == files_below(CHECKOUT / "templates")
    assert files_below(Path(vault)) == files_below(CHECKOUT / "examples" / "vault")


def test_init_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "loras").mkdir()
    env = {"LORAVAULT_CONFIG_DIR": str(tmp_path / "conf"), "LORAVAULT_STATE_DIR": str(tmp_path / "state")}
    script = installed.with_name("loravault")

    out = run(script, "init", "vault", "--loras", "loras", "--yes", cwd=tmp_path, env=env)

    assert "Done." in out
    made = files_below(tmp_path / "vault" / "LoraVault" / "Templates")
    assert made == files_below(CHECKOUT / "templates" / "notes")
    assert (tmp_path / "conf" / "config.toml").is_file()


def test_data_is_found_in_a_checkout() -> None:
    assert resources.templates() == CHECKOUT / "templates"
    assert resources.example_vault() == CHECKOUT / "examples" / "vault"
    assert (resources.demo_base() / "model_index.json").is_file()
    assert list(resources.demo_adapters().glob("*.safetensors"))


def test_every_dependency_is_pinned() -> None:
    """A name in pyproject.toml that constraints.txt lacks would float on a stranger's machine."""
    import tomlkit
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomlkit.parse((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]  # type: ignore[index,misc]
    lines = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]

    for python in ("3.11", "3.13"):
        pinned = {
            canonicalize_name(pin.name)
            for pin in pins
            if not pin.marker or pin.marker.evaluate({"python_version": python})
        }
        assert {canonicalize_name(Requirement(str(name)).name) for name in wanted} <= pinned
    assert all(str(pin.specifier).startswith("==") and pin.url is None for pin in pins)


def test_the_environment_we_test_in_is_the_pinned_one() -> None:
    """What this suite proves, it proves for constraints.txt."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    off = []
    for line in (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines():
        pin = Requirement(line) if line and not line.startswith("#") else None
        if pin is None or (pin.marker and not pin.marker.evaluate()):
            continue
        try:
            found = version(pin.name)
        except PackageNotFoundError:
            continue  # only for another platform, or not asked for
        if not pin.specifier.contains(found, prereleases=True):
            off.append(f"{pin} but {found}")
    assert off == []


def test_example_notes_keep_their_bytes_in_git() -> None:
    """The CRLF note and the note with a BOM are what they claim to be: no checkout has converted them."""
    vault = resources.example_vault()

    soup = (vault / "Kitchen" / "Lentil soup.md").read_bytes()
    assert soup.count(b"\r\n") == soup.count(b"\n") > 10
    assert (vault / "Archive" / "Imported.md").read_bytes().startswith(b"\xef\xbb\xbf---\n")
    assert not (vault / "Reading" / "Reading list.md").read_bytes().endswith(b"\n")
