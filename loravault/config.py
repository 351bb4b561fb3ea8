"""What is configured: `config.toml` in the platform's configuration folder, one `[[vault]]` table per vault.

Settings may stand at the top of the file (for every vault) or in a vault's own table (which wins). All problems are
reported at once, unknown keys with the nearest known one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loravault.errors import UserError
from loravault.settings import DEFAULT_FOLDER, OWN, SHARED, NotThis, Root, same_path, unknown

__all__ = [
    "Root",
    "VaultConfig",
    "config_file",
    "find_vault",
    "known_vaults",
    "load",
    "parse",
    "save_vault",
    "state_home",
    "this_machine",
]

FILE_NAME = "config.toml"


@dataclass(frozen=True, kw_only=True)
class VaultConfig:
    """Everything in force for one vault."""

    #: Absolute path of the vault.
    vault: Path
    #: The one folder inside the vault that is ours, with `/` between its parts.
    folder: str = DEFAULT_FOLDER
    #: Where adapters are looked for.
    loras: tuple[Root, ...] = ()
    #: Folders in which base models are looked for, besides the demo base that comes with loravault.
    bases: tuple[Path, ...] = ()
    #: Folders outside the vault from which training requests may take pictures.
    datasets: tuple[Path, ...] = ()
    #: The folder of a model that describes pictures of trainings that have no caption; None = none does.
    captioner: Path | None = None
    #: Whether a training makes way at its next checkpoint for a picture that somebody waits for.
    training_yields: bool = False
    #: Name of the base that is used where neither the note nor the adapters decide; None = the demo base.
    default_base: str | None = None
    #: Family → name of the base that is used for its adapters, and of the VAE that is used with its bases.
    default_bases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default_vaes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Names for strengths per block → what they stand for (`FACE` → `0,0,1,…` or `in=0.5 out=1`).
    block_presets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Name of this machine, as in `lv_job: <id>@<machine>`.
    machine: str = "here"
    #: `auto` (every NVIDIA card there is), `cpu`, `cuda`, `cuda:<n>` or `mps`; or several, with a worker each.
    device: str | tuple[str, ...] = "auto"
    #: Precision of the models: `auto` (what the device is good at), `float32`, `float16` or `bfloat16`.
    dtype: str = "auto"
    #: What waits in ordinary memory while it is not in use: `auto` (what has to), `none`, `models` or `layers`.
    offload: str = "auto"
    #: Whether models are compiled: a slow first picture, then faster ones.
    compile: bool = False
    #: How adapters are applied: `auto` (whichever is expected to be faster), `merge` or `slots`.
    adapters: str = "auto"
    #: How much memory a worker gives to adapters that it has read and does not draw with just now (MiB).
    adapter_memory_mb: int = 1024
    #: Whether every adapter gets a note, and whether there are gallery pages.
    cards: bool = True
    galleries: bool = True
    #: Whether adapter files are hashed in the background, so that pasted prompts and Civitai find them.
    hashing: bool = True
    #: Covers of adapters above this level of Civitai's are blurred; one of `settings.COVER_LEVELS`. Unknown is shown.
    cover_level: str = "PG-13"
    #: Whether anything may be fetched.
    network: bool = False
    #: `webp`, `png` or `jpeg`.
    image_format: str = "webp"
    #: Where pictures go: `loravault` (our folder) or `obsidian` (the vault's own setting for attachments).
    images: str = "loravault"
    #: Width of the thumbnails in Markdown galleries, in pixels.
    thumbnail_width: int = 144
    #: `none`, or `a1111`: what the user changes on a card is written beside the adapter, where other programs look.
    export: str = "none"
    #: A folder outside the vault for lossless PNGs of everything made; None = they are not kept.
    originals: Path | None = None
    #: Seconds a note must be unchanged before it is read.
    read_quiet_s: float = 1.5
    #: Seconds a note must be unchanged before it is written to.
    write_quiet_s: float = 5.0
    #: Seconds after which a write is checked against an edit that crossed it.
    grace_s: float = 3.0
    #: Seconds between full scans.
    rescan_s: float = 30.0
    #: Results of one note that are ready within this many seconds are written together.
    together_s: float = 15.0
    #: Seconds without work after which the worker leaves.
    idle_exit_s: float = 120.0
    #: How many intact results are kept below a block; None = all.
    result_cap: int | None = None
    #: What an adapter that is not there does to a request: `fail` or `skip`.
    missing_loras: str = "fail"
    #: The most pictures one block may ask for.
    max_count: int = 64
    #: Options of requests that neither the note nor the block sets (`steps`, `cfg`, …).
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: For each setting where its value is from: `default`, `config.toml` or `config.toml, this vault`.
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    #: The folder that holds the state folders of all vaults; None = as the environment says when it is asked for.
    state_root: Path | None = field(default=None, compare=False)

    @property
    def state_path(self) -> Path:
        """Where this vault's index, ledger and lock are: named after the vault, told apart by a hash of its path."""
        digest = hashlib.blake2b(same_path(self.vault).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        return (self.state_root or state_home(os.environ)) / f"{_slug(self.vault.name) or 'vault'}-{digest}"

    @property
    def state_dir(self) -> Path:
        """`state_path`, made if it is missing, for the user alone (mode 0700)."""
        path = self.state_path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def worker_env(self) -> dict[str, str]:
        """What every worker is told; which device is its own comes on top of that (`jobs.workerenv`)."""
        return {
            "LORAVAULT_DTYPE": self.dtype,
            "LORAVAULT_OFFLOAD": self.offload,
            "LORAVAULT_COMPILE": str(int(self.compile)),
            "LORAVAULT_ADAPTERS": self.adapters,
            "LORAVAULT_ADAPTER_MEMORY_MB": str(self.adapter_memory_mb),
        }

    @property
    def own_folder(self) -> Path:
        """Absolute path of our folder in the vault."""
        return self.vault.joinpath(*self.folder.split("/"))


def config_file(env: Mapping[str, str]) -> Path:
    """Where `config.toml` is, whether it exists or not."""
    if chosen := env.get("LORAVAULT_CONFIG_DIR"):
        return Path(chosen) / FILE_NAME
    from platformdirs import user_config_path  # noqa: PLC0415 - `--help` needs no folder of the platform

    return user_config_path("loravault", appauthor=False) / FILE_NAME


def state_home(env: Mapping[str, str]) -> Path:
    """The folder that holds one state folder per vault."""
    if chosen := env.get("LORAVAULT_STATE_DIR"):
        return Path(chosen)
    from platformdirs import user_state_path  # noqa: PLC0415

    return user_state_path("loravault", appauthor=False)


def find_vault(option: str | None, env: Mapping[str, str], cwd: Path) -> Path:
    """The vault that is meant: the option, else LORAVAULT_VAULT, else the nearest one at or above `cwd`."""
    for value, source in ((option, "--vault"), (env.get("LORAVAULT_VAULT"), "LORAVAULT_VAULT")):
        if value:
            path = Path(os.path.abspath(cwd / Path(value).expanduser()))
            if not path.is_dir():
                raise UserError(f"There is no vault at {path} (from {source}): there is no such folder.")
            return path
    known = known_vaults(env)
    known_keys = {same_path(path) for path in known}
    for folder in (cwd, *cwd.parents):
        if same_path(folder) in known_keys or (folder / ".obsidian").is_dir():
            return folder
    listed = f" Known vaults: {', '.join(map(str, known))}." if known else ""
    raise UserError(f"No vault at or above {cwd}: name one with `--vault PATH` or LORAVAULT_VAULT.{listed}")


def known_vaults(env: Mapping[str, str]) -> tuple[Path, ...]:
    """The vaults in `config.toml`, in its order; () when there is no such file."""
    file = config_file(env)
    if not file.exists():
        return ()
    tables = _read(file).get("vault", [])
    paths = [table.get("path") for table in tables if isinstance(table, Mapping)] if isinstance(tables, list) else []
    return tuple(Path(path).expanduser() for path in paths if isinstance(path, str))


def load(vault: Path, env: Mapping[str, str] | None = None) -> VaultConfig:
    """What is in force for `vault`. Raises `UserError` naming every problem of the file that concerns it."""
    env = os.environ if env is None else env
    if not vault.is_dir():
        raise UserError(f"There is no vault at {vault}: there is no such folder.")
    file = config_file(env)
    document = _read(file) if file.exists() else {}
    table = _table_of(document, vault)
    if table is None:
        raise UserError(f"{vault} is not set up yet: run `loravault init {_quoted(vault)} --loras FOLDER` first.")
    return replace(parse(document, table, vault, str(file)), state_root=state_home(env))


def parse(document: Mapping[str, Any], table: Mapping[str, Any], vault: Path, where: str) -> VaultConfig:
    """Join the shared settings of `document` with the vault's own `table`. Raises one `UserError` for all problems."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    shared = {key: value for key, value in document.items() if key != "vault"}
    for settings, allowed, origin in (
        (shared, SHARED, FILE_NAME),
        ({k: v for k, v in table.items() if k != "path"}, SHARED | OWN, f"{FILE_NAME}, this vault"),
    ):
        for key, raw in settings.items():
            check = allowed.get(key)
            if check is None:
                problems.append(unknown(key, allowed))
                continue
            try:
                checked = check(raw)
            except NotThis as reason:
                problems.append(f"`{key}` {reason}")
                continue
            values[key] = {**values.get("defaults", {}), **checked} if key == "defaults" else checked
            origins[key] = origin
    if problems:
        raise UserError(f"{where} needs a correction: {'; '.join(problems)}.")
    if "defaults" in values:
        values["defaults"] = MappingProxyType(values["defaults"])
    values.setdefault("machine", this_machine())
    return VaultConfig(vault=vault, **values, origins=MappingProxyType(origins))


def this_machine() -> str:
    """A short name of this machine that is safe inside `<id>@<machine>`."""
    return _slug(platform.node().split(".")[0]).lower() or "here"


# --- writing ---------------------------------------------------------------------------------------------------------

_HEADER = """\
# Which vaults loravault serves, and with what. `loravault config` prints what is in force and where it is from.
# Settings above the first [[vault]] hold for all vaults; a vault's own table wins.
"""


def save_vault(config: VaultConfig, env: Mapping[str, str] | None = None) -> Path:
    """Write the vault's folder, roots and bases into `config.toml`; everything else there stays as it is."""
    import tomlkit  # noqa: PLC0415 - only `init` writes

    env = os.environ if env is None else env
    file = config_file(env)
    text = file.read_text("utf-8") if file.exists() else _HEADER
    try:
        document = tomlkit.parse(text)
    except ValueError as error:
        raise UserError(f"{file} cannot be read as TOML: {error}.") from error
    tables = document.setdefault("vault", tomlkit.aot())
    if not isinstance(tables, list):
        raise UserError(f"{file} needs a correction: `vault` must be written as [[vault]] tables.")
    table = _table_of(document, config.vault)
    if table is None:
        table = tomlkit.table()
        table["path"] = str(config.vault)
        tables.append(table)
        table = tables[-1]
    _fill(table, config)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_config(file, tomlkit.dumps(document))
    return file


def write_config(file: Path, text: str) -> None:
    """Writes the configuration, whole or not at all. Two commands may do so at once, so each has a part of its own."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


def _fill(table: Any, config: VaultConfig) -> None:
    import tomlkit  # noqa: PLC0415

    if config.folder != DEFAULT_FOLDER or "folder" in table:
        table["folder"] = config.folder
    if config.bases or "bases" in table:
        table["bases"] = tomlkit.item([str(path) for path in config.bases]).multiline(len(config.bases) > 1)
    if config.default_base is not None:
        table["default_base"] = config.default_base
    roots = tomlkit.table()
    for root in config.loras:
        roots[root.name] = str(root.path)
    table["loras"] = roots


def _table_of(document: Mapping[str, Any], vault: Path) -> Any:
    """The `[[vault]]` table of `vault`, or None."""
    tables = document.get("vault", [])
    for table in tables if isinstance(tables, list) else []:
        path = table.get("path") if isinstance(table, Mapping) else None
        if isinstance(path, str) and same_path(Path(path).expanduser()) == same_path(vault):
            return table
    return None


def _read(file: Path) -> dict[str, Any]:
    import tomlkit  # noqa: PLC0415
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    try:
        return tomlkit.parse(file.read_text("utf-8")).unwrap()
    except (TOMLKitError, ValueError, OSError) as error:  # a key that is there twice is no ValueError
        raise UserError(f"{file} cannot be read as TOML: {error}.") from error


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40].strip("-")


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
