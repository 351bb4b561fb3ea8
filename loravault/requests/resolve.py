"""From a block to what the engine needs, or to everything that is wrong with it at once.

Options, weakest first: the family's, the configuration's, the adapter's card, the note's properties, pasted parameters,
`#|` lines; a tag in the prompt decides the weight of its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from loravault.formats import samplers
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec, VaeRef
from loravault.formats.infotext import hash_name
from loravault.formats.prompt_tags import weighting_example
from loravault.requests import adapters, defaults, options, words
from loravault.requests.fingerprint import fingerprint
from loravault.requests.model import MAX_SEED, Block, Catalog, NotFound, Refusal, Request, Resolved

_GRID = frozenset({"x", "y", "z"})
_FORMAT = options.choice("webp", "png", "jpeg", jpg="jpeg")
_MISSING = options.choice("fail", "skip")
_WHERE_BASES = "`loravault bases` lists those that are here and where they are looked for."
_CONFIGURATION = "the configuration"
_PASTED = "the pasted parameters"
#: What people write for the VAE that comes with the base.
_OWN_VAE = frozenset({"none", "own", "automatic", "default"})


@dataclass
class _Work:
    """One block on its way; problems and warnings in the order a person would look for them."""

    block: Block
    catalog: Catalog
    given: dict[str, options.Given]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    no_base: bool = False

    @property
    def wish(self) -> str | None:
        """The model of pasted parameters, unless the block itself names a base."""
        return None if "base" in self.block.parsed.options else self.block.parsed.parameters.get("Model")


def resolve_block(request: Request, block: Block, catalog: Catalog) -> Resolved | Refusal:
    """Everything that decides the pictures of one block, or all that is wrong with it, in words."""
    said = options.misspelled(request.properties) if request.kind == "generate" else []
    work = _Work(block, catalog, _given(request, block, catalog), [*request.problems], [*said, *block.parsed.warnings])
    if not request.problems:
        if block.container_problem:
            work.problems.append(block.container_problem)
        work.problems.extend(block.parsed.problems)
        resolved = _resolve(work)
        if resolved is not None:
            return resolved
    messages = tuple(dict.fromkeys(work.problems))
    seen = {"refused": messages, "block": block.block_hash, "options": _plain(request.options)}
    return Refusal(
        messages=messages,
        fingerprint=fingerprint(seen),
        warnings=tuple(dict.fromkeys(work.warnings)),
        absent=tuple(work.absent),
        no_base=work.no_base,
    )


def with_seeds(resolved: Resolved, draw: Callable[[], int]) -> GenerationSpec:
    """The value for the engine: picture n has the first seed + n, as in A1111. `draw` gives 0 … `MAX_SEED`."""
    first = resolved.seed if resolved.seed is not None else min(draw(), MAX_SEED - resolved.count + 1)
    return GenerationSpec(
        base=resolved.base,
        prompt=resolved.prompt,
        negative=resolved.negative,
        seeds=tuple(range(first, first + resolved.count)),
        width=resolved.width,
        height=resolved.height,
        steps=resolved.steps,
        cfg=resolved.cfg,
        sampler=resolved.sampler,
        clip_skip=resolved.clip_skip,
        adapters=resolved.adapters,
        vae=resolved.vae,
        image_format=resolved.image_format,
        written_prompt=resolved.written_prompt,
    )


def _given(request: Request, block: Block, catalog: Catalog) -> dict[str, options.Given]:
    parsed = block.parsed
    given = options.gather(
        [
            (_CONFIGURATION, catalog.config_defaults()),
            ("the properties", request.options),
            (_PASTED, options.pasted_options(parsed.parameters)),
            ("the block", {"negative": parsed.negative}),
            ("the block", parsed.options),
        ]
    )
    # Where a block says "none", that is more than not saying anything.
    if parsed.options.get("negative") == "" or (parsed.negative == "" and "negative" not in parsed.options):
        given["negative"] = options.Given("", "the block")
    if parsed.options.get("loras", "-").lower() in ("", "none"):
        given.pop("loras", None)
    return given


def _resolve(work: _Work) -> Resolved | None:
    """The block as a whole; None if there are problems. Goes on after a problem, so that all are said at once."""
    _say_unused(work)
    _check_prompt(work)
    choice = _adapters(work)
    base = _base(work, choice)
    work.no_base = base is None
    family = base.family if base is not None else "sd15"
    defaults_here = work.catalog.defaults_for(family, base.variant if base is not None else None)
    _drop_foreign_sampler(work, family)
    for key, value in defaults_here.items():
        if value is not None:
            work.given.setdefault(key, options.Given(value, "the defaults"))
    values = _values(work, family)
    vae = _vae(work)
    if base is not None:
        _check_families(work, choice, base)
        _weight_blocks(work, choice, family)
    if values["triggers"] is not None and (unknown := words.unknown_group(values["triggers"], choice.chosen)):
        work.problems.append(unknown)
    if work.problems or base is None:
        return None
    if vae is not None:
        values["vae"] = vae
    return _put_together(work, base, values, choice)


def _put_together(work: _Work, base: BaseRef, values: dict[str, Any], choice: adapters.Choice) -> Resolved:
    parsed = work.block.parsed
    prompt, said = words.with_triggers(parsed.prompt, choice.chosen, values.pop("triggers"))
    work.warnings.extend(said)
    vocabulary = work.catalog.vocabulary(base)
    unknown = words.unknown_words(prompt, vocabulary, base.name, choice.chosen) if vocabulary is not None else None
    if unknown:
        work.warnings.append(unknown)
    width, height = values.pop("size")
    _warn_of_size(work, base, width, height)
    values.update(prompt=prompt, negative=_negative(values["negative"], choice), width=width, height=height)
    uses = tuple(one.use for one in choice.chosen)
    return Resolved(
        **values,
        base=base,
        written_prompt=parsed.written_prompt,
        adapters=uses,
        fingerprint=_fingerprint(values, base, uses),
        warnings=tuple(dict.fromkeys(work.warnings)),
        absent=tuple(work.absent),
    )


def _fingerprint(values: Mapping[str, Any], base: BaseRef, uses: tuple[AdapterUse, ...]) -> str:
    """Of what decides the pictures: adapters by their weights and the base by its name, never by a place on a disk."""
    vae = values.get("vae")
    return fingerprint(
        {
            **values,
            **({"vae": vae.name} if vae is not None else {}),
            "v": 1,
            "base": [base.family, base.name],
            "adapters": [_identity(use) for use in uses],
        }
    )


def _identity(use: AdapterUse) -> list[Any]:
    """An adapter in a fingerprint; strengths per block are there only if there are some, so that old ones stay."""
    blocks = [[list(one) for one in use.blocks]] if use.blocks else []
    return [use.weight_id, float(use.te), float(use.unet), *blocks]


def _check_prompt(work: _Work) -> None:
    prompt = work.block.parsed.prompt
    limit = defaults.MAX_PROMPT_CHARACTERS
    if not prompt:
        work.problems.append("The block has no prompt: write into it what the picture should show.")
    elif len(prompt) > limit:
        work.problems.append(f"The prompt is {len(prompt):,} characters long; at most {limit:,} are read.")
    elif example := weighting_example(prompt):
        work.warnings.append(
            f'Prompt syntax such as "{example}" is not interpreted yet; the base got it as plain text.'
        )


def _say_unused(work: _Work) -> None:
    """What the block asks for that is not done: grids are refused, unknown options and foreign parameters are named."""
    parsed = work.block.parsed
    for key in sorted(parsed.options.keys() & _GRID):
        work.problems.append(f'Grids ("#| {key}: …") are not built yet; write one block for each variant.')
    work.warnings.extend(options.unknown_options(key for key in parsed.options if key not in _GRID))
    unused = [key for key in options.UNUSED if key in parsed.parameters]
    if unused:
        work.warnings.append(f"Not used of the pasted parameters: {', '.join(unused)}.")


def _adapters(work: _Work) -> adapters.Choice:
    parsed = work.block.parsed
    missing = options.read(work.given, "missing_loras", _MISSING, work.problems)
    wanted = adapters.from_option(work.given["loras"].value, work.problems) if "loras" in work.given else []
    tagged = adapters.from_tags(parsed.tags, parsed.pasted_hashes)
    choice = adapters.choose([*wanted, *tagged], work.catalog, skip_missing=missing == "skip")
    work.problems.extend(choice.problems)
    work.warnings += [*choice.warnings, *choice.together]
    work.absent += choice.absent
    named = {hash_name(tag.name).casefold() for tag in parsed.tags}
    for name in parsed.pasted_hashes:
        if name not in named:
            work.warnings.append(f'The pasted parameters name the LoRA "{name}", but the prompt has no tag for it.')
    return choice


def _base(work: _Work, choice: adapters.Choice) -> BaseRef | None:
    """The base: named in the block, else the pasted model if it is here, else that of the note, else what fits."""
    families = {one.adapter.family for one in choice.chosen} - {"unknown"}
    if work.wish:
        wished = work.catalog.find_base(work.wish, families)
        if isinstance(wished, BaseRef):
            return wished
    named = options.read(work.given, "base", options.text, work.problems)
    base = _named_base(work, named, families) if named else _fitting_base(work, choice, families)
    if base is not None and work.wish:
        work.warnings.append(
            f'The model "{work.wish}" of the pasted parameters is not here; "{base.name}" was used instead.'
        )
    return base


def _named_base(work: _Work, name: str, families: Collection[str]) -> BaseRef | None:
    base = work.catalog.find_base(name, families)
    if isinstance(base, BaseRef):
        return base
    near = f"Nearest: {', '.join(base.closest)}." if base.closest else _WHERE_BASES
    work.problems.append(base.reason or f'There is no base "{name}". {near}')
    return None


def _vae(work: _Work) -> VaeRef | None:
    """The VAE that is asked for, or that the configuration names for the family; None = the base's own."""
    name = options.read(work.given, "vae", options.text, work.problems)
    if name is None or name.casefold() in _OWN_VAE:
        return None
    found = work.catalog.find_vae(name)
    if not isinstance(found, NotFound):
        return found
    near = f"Nearest: {', '.join(found.closest)}." if found.closest else "None were found in the folders with bases."
    if work.given["vae"].place == _PASTED:
        work.warnings.append(
            f'The VAE "{name}" of the pasted parameters is not here; that of the base was used instead.'
        )
    else:
        work.problems.append(f'There is no VAE "{name}". {near}')
    return None


def _drop_foreign_sampler(work: _Work, family: str) -> None:
    """The configuration's sampler is for the families that have it; a flow model takes its own."""
    given = work.given.get("sampler")
    if given is None or given.place != _CONFIGURATION or family not in samplers.FLOW_FAMILIES:
        return
    if samplers.canonical(str(given.value)) not in samplers.FLOW_SAMPLERS:
        del work.given["sampler"]


def _fitting_base(work: _Work, choice: adapters.Choice, families: Collection[str]) -> BaseRef | None:
    """Without a name: the one an adapter's card prefers, else one of the adapters' family, else the default."""
    preferred = next((one.adapter.base for one in choice.chosen if one.adapter.base), None)
    base = work.catalog.find_base(preferred, families) if preferred else NotFound()
    if isinstance(base, NotFound):
        base = work.catalog.find_base(None, families)
    if isinstance(base, BaseRef):
        return base
    if families:
        needing = next(one.adapter for one in choice.chosen if one.adapter.family in families)
        there = f" Bases here: {', '.join(base.closest)}." if base.closest else ""
        work.problems.append(f'"{needing.name}" needs a base of the family {needing.family}, and there is none.{there}')
    else:
        work.problems.append(f"There is no base to make pictures with. {_WHERE_BASES}")
    return None


def _check_families(work: _Work, choice: adapters.Choice, base: BaseRef) -> None:
    for one in choice.chosen:
        family, name = one.adapter.family, one.adapter.name
        if family == "unknown":
            work.warnings.append(f'The family of "{name}" could not be told, so whether it fits is not certain.')
        elif family != base.family:
            work.problems.append(
                f'"{name}" is a LoRA for {family}, and the base "{base.name}" is {base.family}: '
                f"take a base of {family} or another LoRA."
            )
        elif _differ(one.adapter.variant, base.variant):
            work.warnings.append(
                f'"{name}" was made for {one.adapter.variant}, and the base "{base.name}" is {base.variant}: '
                "it fits, but may do less than it should, or something else."
            )


def _weight_blocks(work: _Work, choice: adapters.Choice, family: str) -> None:
    """What the strengths per block come to on this base."""
    known = len(choice.problems), len(choice.warnings)
    adapters.with_blocks(choice, family, work.catalog.block_presets())
    work.problems += choice.problems[known[0] :]
    work.warnings += choice.warnings[known[1] :]


def _differ(adapter: str | None, base: str | None) -> bool:
    """Whether both variants are known and are not the same. How a base predicts is no matter of its adapters."""
    known = {(one or "").casefold() for one in (adapter, base)}
    return len(known) == 2 and not known & {"", "v-prediction"}


def _values(work: _Work, family: str) -> dict[str, Any]:
    """Every option that is not a name, parsed; None where it is not given or wrong (then a problem says so)."""
    layers = defaults.CLIP_LAYERS.get(family, 12)
    parsers: dict[str, Callable[[Any], Any]] = {
        "seed": options.seed,
        "count": options.whole(1, work.catalog.max_count, " (the most that one block may ask for)"),
        "size": options.size_for(family),
        "steps": options.whole(1, defaults.MAX_STEPS),
        "cfg": options.number(0, defaults.MAX_CFG),
        "sampler": options.sampler_for(family),
        "clip_skip": options.whole(1, layers, f" (the text encoder of {family} has {layers} layers)"),
        "triggers": words.read_triggers,
        "format": _FORMAT,
        "again": options.text,
        "negative": options.text,
    }
    values = {key: options.read(work.given, key, parse, work.problems) for key, parse in parsers.items()}
    seed, count = values["seed"], values["count"]
    if seed is not None and count is not None and seed + count - 1 > MAX_SEED:
        work.problems.append(f"The last of {count} seeds from {seed} on would be above {MAX_SEED}; take a smaller one.")
    values["image_format"] = values.pop("format")
    values["again"] = values["again"] or ""
    return values


def _negative(given: str | None, choice: adapters.Choice) -> str:
    """The negative prompt, with what the cards of the adapters add to it."""
    parts = [given or ""]
    for one in choice.chosen:
        if one.adapter.negative and not words.contains(", ".join(parts), one.adapter.negative):
            parts.append(one.adapter.negative.strip())
    return ", ".join(part for part in parts if part)


def _warn_of_size(work: _Work, base: BaseRef, width: int, height: int) -> None:
    native = defaults.NATIVE_SIDE.get(base.family)
    if native and max(width, height) > 2 * native:
        work.warnings.append(
            f"The {base.name} base was made for {native}×{native}; in much larger pictures things appear several times."
        )


def _plain(value: Any) -> Any:
    """A property's value as JSON can hold it, whatever YAML made of it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
