"""config.toml: what is in force, what is refused and in which words, and that writing it keeps what a person wrote."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from loravault import config, settings
from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.settings import Root


def write_config(folder: Path, text: str) -> dict[str, str]:
    """An environment in which `text` is the configuration file."""
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "config.toml").write_text(text, "utf-8")
    return {"LORAVAULT_CONFIG_DIR": str(folder / "conf")}


def vault_table(vault: Path, more: str = "") -> str:
    return f"[[vault]]\npath = '{vault}'\n{more}"


def test_the_vaults_table_wins_over_the_top_of_the_file_and_says_so(tmp_path: Path) -> None:
    env = write_config(tmp_path, "device = 'cpu'\ngrace_s = 1\n" + vault_table(tmp_path, "grace_s = 2.5\n"))

    found = config.load(tmp_path, env)

    assert (found.device, found.grace_s, found.rescan_s) == ("cpu", 2.5, 30.0)
    assert found.origins == {"device": "config.toml", "grace_s": "config.toml, this vault"}


def test_roots_and_defaults_are_read(tmp_path: Path) -> None:
    more = f"[vault.loras]\nstyles = '{tmp_path}/s'\n[vault.defaults]\nsteps = 12\nsize = '512x768'\n"
    env = write_config(tmp_path, "[defaults]\nsteps = 30\ncfg = 5\n" + vault_table(tmp_path, more))

    found = config.load(tmp_path, env)

    assert found.loras == (Root("styles", tmp_path / "s"),)
    assert dict(found.defaults) == {"steps": 12, "cfg": 5.0, "size": "512x768"}


def test_bases_and_vaes_of_families_are_read(tmp_path: Path) -> None:
    text = "default_bases = { sdxl = 'juggernautXL', flux = ' dev ' }\ndefault_vaes = { sd15 = 'ft-mse' }\n"
    found = config.load(tmp_path, write_config(tmp_path, text + vault_table(tmp_path)))
    assert dict(found.default_bases) == {"sdxl": "juggernautXL", "flux": "dev"}
    assert dict(found.default_vaes) == {"sd15": "ft-mse"}


def test_all_problems_are_told_at_once_with_the_nearest_setting(tmp_path: Path) -> None:
    text = "devize = 'cpu'\nnetwork = 'yes'\n" + vault_table(tmp_path, "grace_s = -1\n[vault.defaults]\nstep = 3\n")
    env = write_config(tmp_path, text)

    with pytest.raises(UserError) as caught:
        config.load(tmp_path, env)

    for part in ("did you mean `device`", "`network` must be true or false", "`grace_s` must be", "mean `steps`"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("rescan_s = nan", "`rescan_s` must be a number"),
        ("rescan_s = true", "`rescan_s` must be a number"),
        ("result_cap = 0", "`result_cap` must be a whole number"),
        ("image_format = 'gif'", "one of webp, png, jpeg"),
        ("originals = 'relative/x'", "`originals` must be a full path"),
        ("bases = '/x'", "`bases` must be a list"),
        ("device = 'cuda:x'", "`device` must be auto"),
        ("folder = '.hidden'", "a folder inside the vault that Obsidian shows"),
        ("folder = '../out'", "a folder inside the vault that Obsidian shows"),
        ("folder = '/abs'", "a folder inside the vault that Obsidian shows"),
        ("machine = 'a@b'", "`machine` must be letters"),
        ("loras = ['/x']", "`loras` must be a table"),
        ("loras = { 'a/b' = '/x' }", "has a root named 'a/b'"),
        ("loras = { a = '/x', b = '/x/../x' }", "`loras` names /x twice"),
        ("default_bases = 'x'", "`default_bases` must be a table of families and names of bases"),
        ("default_bases = { sdlx = 'x' }", "names the family 'sdlx', which there is not (did you mean 'sdxl'?)"),
        (
            "block_presets = { INALL = '1,1' }",
            "`block_presets` has 'INALL', which is a name that has a meaning already",
        ),
        ("block_presets = { FACE = 'nose' }", "`block_presets` has 'FACE', which must be numbers with commas between"),
        ("block_presets = ['FACE']", "`block_presets` must be a table of names and texts"),
        ("default_vaes = { sd15 = 7 }", "`default_vaes` must be a table of families and names of VAEs"),
        ("defaults = 3", "`defaults` must be a table"),
        ("defaults = { size = 'big' }", "`size` must be as 512x768"),
    ],
)
def test_bad_values_are_refused_in_words(tmp_path: Path, line: str, part: str) -> None:
    env = write_config(tmp_path, vault_table(tmp_path, line + "\n"))

    with pytest.raises(UserError) as caught:
        config.load(tmp_path, env)

    assert part in caught.value.message


def test_settings_of_one_vault_are_not_allowed_for_all(tmp_path: Path) -> None:
    env = write_config(tmp_path, "folder = 'X'\n" + vault_table(tmp_path))

    with pytest.raises(UserError, match="`folder` is not a setting"):
        config.load(tmp_path, env)


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    env = write_config(tmp_path, "device = \n")

    with pytest.raises(UserError, match=r"config\.toml cannot be read as TOML: .*line 1"):
        config.load(tmp_path, env)


def test_a_vault_that_is_not_set_up_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `loravault init"):
        config.load(tmp_path, {"LORAVAULT_CONFIG_DIR": str(tmp_path)})


def test_a_vault_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        config.load(tmp_path / "gone", {})


def test_a_vault_is_known_by_any_spelling_of_its_path(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (tmp_path / "link").symlink_to(vault)
    env = write_config(tmp_path, vault_table(tmp_path / "link", "grace_s = 7\n"))

    assert config.load(vault, env).grace_s == 7.0


class TestFindVault:
    def test_the_option_beats_the_environment(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()

        assert config.find_vault("a", {"LORAVAULT_VAULT": "/nowhere"}, tmp_path) == tmp_path / "a"

    def test_the_environment_beats_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / ".obsidian").mkdir()

        assert config.find_vault(None, {"LORAVAULT_VAULT": str(tmp_path / "a")}, tmp_path) == tmp_path / "a"

    def test_upwards_by_obsidians_folder(self, tmp_path: Path) -> None:
        (tmp_path / ".obsidian").mkdir()
        (tmp_path / "x" / "y").mkdir(parents=True)
        env = {"LORAVAULT_CONFIG_DIR": str(tmp_path)}

        assert config.find_vault(None, env, tmp_path / "x" / "y") == tmp_path

    def test_upwards_by_the_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "v" / "x").mkdir(parents=True)
        env = write_config(tmp_path, vault_table(tmp_path / "v"))

        assert config.find_vault(None, env, tmp_path / "v" / "x") == tmp_path / "v"

    def test_nothing_found_lists_what_is_known(self, tmp_path: Path) -> None:
        env = write_config(tmp_path, vault_table(tmp_path / "v"))

        with pytest.raises(UserError, match=f"Known vaults: {tmp_path / 'v'}"):
            config.find_vault(None, env, tmp_path)

    def test_a_folder_that_is_not_there_is_told_with_its_source(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="from LORAVAULT_VAULT"):
            config.find_vault(None, {"LORAVAULT_VAULT": str(tmp_path / "no")}, tmp_path)


class TestSave:
    def test_what_is_saved_is_what_is_loaded(self, tmp_path: Path) -> None:
        env = {"LORAVAULT_CONFIG_DIR": str(tmp_path / "deep" / "conf")}
        wanted = VaultConfig(
            vault=tmp_path,
            folder="AI/Loras",
            loras=(Root("Lora", tmp_path / "l"), Root("my styles", tmp_path / "m")),
            bases=(tmp_path / "b", tmp_path / "c"),
            default_base="dream",
            machine=config.this_machine(),
        )

        config.save_vault(wanted, env)

        assert config.load(tmp_path, env) == wanted

    def test_a_persons_comments_and_other_vaults_stay(self, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        text = "# mine\ndevice = 'cpu'  # slow but safe\n\n" + vault_table(tmp_path, "grace_s = 9 # long\n")
        env = write_config(tmp_path, text)

        config.save_vault(VaultConfig(vault=tmp_path / "new", loras=(Root("a", tmp_path / "a"),)), env)

        after = (tmp_path / "conf" / "config.toml").read_text("utf-8")
        assert after.startswith(text.rstrip("\n"))
        assert config.load(tmp_path, env).grace_s == 9
        assert config.load(tmp_path / "new", env).loras == (Root("a", tmp_path / "a"),)

    def test_saving_again_replaces_the_roots_and_keeps_the_settings(self, tmp_path: Path) -> None:
        env = write_config(tmp_path, vault_table(tmp_path, "grace_s = 9 # long\n[vault.loras]\nold = '/old'\n"))

        config.save_vault(VaultConfig(vault=tmp_path, loras=(Root("new", tmp_path / "n"),)), env)

        found = config.load(tmp_path, env)
        assert (found.grace_s, found.loras) == (9, (Root("new", tmp_path / "n"),))
        assert "# long" in (tmp_path / "conf" / "config.toml").read_text("utf-8")

    @given(name=st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=20))
    def test_any_path_survives_the_file(self, name: str) -> None:
        """Quotes, backslashes, control characters: what `init` writes, `load` reads."""
        wanted = VaultConfig(vault=Path("/v"), loras=(Root("r", Path("/l") / name),))
        table = tomlkit.table()

        config._fill(table, wanted)

        document = tomlkit.parse(tomlkit.dumps({"vault": [table]})).unwrap()
        assert settings.OWN["loras"](document["vault"][0]["loras"]) == wanted.loras


def test_the_state_folder_is_the_users_alone_and_differs_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    one, two = VaultConfig(vault=tmp_path / "a" / "My Notes"), VaultConfig(vault=tmp_path / "b" / "My Notes")

    assert one.state_path != two.state_path
    assert one.state_path.name.startswith("My-Notes-")
    assert not one.state_path.exists()
    assert stat.S_IMODE(one.state_dir.stat().st_mode) == 0o700


def test_the_state_folder_is_looked_up_where_the_configuration_was(tmp_path: Path) -> None:
    env = write_config(tmp_path, vault_table(tmp_path)) | {"LORAVAULT_STATE_DIR": str(tmp_path / "elsewhere")}

    assert config.load(tmp_path, env).state_path.parent == tmp_path / "elsewhere"


def test_every_setting_has_a_place_in_the_value() -> None:
    assert set(config.VaultConfig.__dataclass_fields__) == {*settings.SETTINGS, "vault", "origins", "state_root"}


def test_a_setting_that_fell_into_the_table_of_loras_is_told(tmp_path: Path) -> None:
    """Appended to the end of the file, as everybody does: it was told as a path that is none."""
    more = f"[vault.loras]\nstyles = '{tmp_path}/s'\n"
    env = write_config(tmp_path, vault_table(tmp_path, f"{more}cover_level = 'all'\n"))
    with pytest.raises(UserError, match=r"`loras` has `cover_level` below its heading: move that line above"):
        config.load(tmp_path, env)
    env = write_config(tmp_path, vault_table(tmp_path, f"{more}images = '{tmp_path}/i'\n"))
    assert [root.name for root in config.load(tmp_path, env).loras] == ["styles", "images"], "a name like any other"


def test_the_folder_of_a_captioner_is_a_full_path(tmp_path: Path) -> None:
    env = write_config(tmp_path, f"captioner = '{tmp_path}/blip'\n" + vault_table(tmp_path))
    assert config.load(tmp_path, env).captioner == tmp_path / "blip"
    env = write_config(tmp_path, "captioner = 'org/blip'\n" + vault_table(tmp_path))
    with pytest.raises(UserError, match="`captioner` must be a full path"):
        config.load(tmp_path, env)
