"""Which adapters a `preview` request shows, and the jobs of it: one picture for each, answered in one callout.

Everything follows from the note, the library and the pictures on disk, so that a lost index loses no run: job ids are
made of run, block and weight id, and a picture says for which adapter it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session

from loravault.formats.generation import BaseRef
from loravault.index import covers
from loravault.index.tables import ImageRow
from loravault.jobs.catalog import IndexCatalog
from loravault.jobs.planning import Looked, Plan, decided, job_id
from loravault.requests import adapters, options, previews
from loravault.requests.adapters import Chosen
from loravault.requests.model import Block, Request, Resolved
from loravault.requests.previews import Subject
from loravault.vault.regions import Region

ALL_SHOWN = "every LoRA that can be shown here has a picture"


@dataclass(frozen=True)
class Found:
    """The adapters that a request is about."""

    #: By name; lazily, because most are not needed now.
    subjects: Callable[[], Iterator[Subject]]
    total: int
    #: What is to be told beside the pictures.
    remarks: tuple[str, ...] = ()
    #: What is wrong with the request as a whole.
    problems: tuple[str, ...] = ()
    #: Names of which no file is there, as far as is known.
    absent: tuple[str, ...] = ()


class Previews:
    """One request of the kind `preview`, looked at with what there is now."""

    def __init__(self, session: Session, request: Request, catalog: IndexCatalog) -> None:
        self._session = session
        self._request = request
        self._catalog = catalog
        self._problems: list[str] = [*request.problems]
        self._count = previews.count_of(request, self._problems)

    # ---- plans

    def tick(self) -> Plan:
        """What an explicit tick runs: named adapters as often as something about them is new, others once."""
        found = self._find(lambda _row: False)
        if found.problems:
            return Plan(refusals=found.problems, lacking=found.absent)
        if not found.total:
            return Plan(message=_nothing(found), lacking=found.absent)
        subjects = self._some(found.subjects())
        looked = self._looked(subjects)
        plan = decided(looked)
        left = self._left(found.total - len(subjects), "tick `run` again")
        return replace(plan, remarks=(*self._prompts(subjects), *found.remarks, *left), lacking=found.absent)

    def background(self, known: Collection[str], tried: set[str]) -> Plan:
        """What `auto` runs: adapters without a picture that nobody has tried to draw like this yet.

        Puts the weight ids of those that were into `tried`, and does not look at those that are in it.
        """
        found = self._find(lambda _row: False)
        if found.problems or not found.total:
            return Plan()
        taken: list[Looked] = []
        shown: list[Subject] = []
        for subject in found.subjects():
            if subject.weight_id in tried:
                continue
            new = [item for item in self._looked([subject]) if item.fingerprint not in known and not item.unchanged]
            if not new:
                tried.add(subject.weight_id)
                continue
            if len(shown) == self._count:
                break
            taken += new
            shown.append(subject)
        left = self._left(found.total - len(shown) - len(tried), "they follow by themselves")
        remarks = (*self._prompts(shown), *found.remarks, *left)
        return Plan(tuple(taken), remarks=remarks, background=True, lacking=found.absent)

    def recover(self, run_id: str, regions: Sequence[Region]) -> Plan:
        """The rest of a run whose rows are lost: pictures of it that exist are adopted, the others are made."""

        def is_of_run(row: ImageRow) -> bool:
            return row.job in self._ids(run_id, row.stands_for)

        found = self._find(is_of_run)
        if found.problems:
            return Plan(refusals=found.problems, lacking=found.absent)
        answered = {region.job for region in regions}
        subjects = list(found.subjects())
        with_picture = {row.stands_for for row in covers.standing(self._session) if is_of_run(row)}
        begun = [subject for subject in subjects if subject.weight_id in with_picture]
        rest = [subject for subject in subjects if subject.weight_id not in with_picture]
        chosen = begun + (rest if self._is_named else rest[: max(0, self._count - len(begun))])
        items = [item for item in self._looked(chosen) if sheet_id(run_id, item.block) not in answered]
        return Plan(tuple(items), remarks=(*self._prompts(chosen), *found.remarks), lacking=found.absent)

    # ---- which adapters

    @property
    def _is_named(self) -> bool:
        return bool(self._request.options.get("loras"))

    def _find(self, but: Callable[[ImageRow], bool]) -> Found:
        if self._is_named:
            return self._named()
        base = self._named_base()
        if self._problems:
            return Found(lambda: iter(()), 0, problems=tuple(dict.fromkeys(self._problems)))
        shown = covers.rendered(self._session, but=but)
        lacking = [one for one in covers.bare(self._session) if one.weight_id not in shown]
        usable = {family: self._is_usable(family, base) for family in {one.family for one in lacking}}
        wanted = [one for one in lacking if usable[one.family]]
        others = Counter(one.family for one in lacking if not usable[one.family])

        def subjects() -> Iterator[Subject]:
            for one in wanted:
                adapter = self._catalog.adapter_of(one.weight_id)
                if adapter is not None:
                    weight = 1.0 if adapter.weight is None else adapter.weight
                    yield Subject(Chosen(adapter, weight, weight, False), one.variant)

        return Found(subjects, len(wanted), remarks=_told(others, base))

    def _named(self) -> Found:
        given = options.gather([("", self._catalog.config_defaults()), ("", self._request.options)])
        missing = str(given["missing_loras"].value).strip().casefold() if "missing_loras" in given else "fail"
        wanted = adapters.from_option(self._request.options["loras"], self._problems)
        choice = adapters.choose(wanted, self._catalog, skip_missing=missing == "skip")
        problems = (*self._problems, *choice.problems)
        variants = covers.variants(self._session, [one.adapter.weight_id for one in choice.chosen])
        subjects = [Subject(one, variants.get(one.adapter.weight_id), named=True) for one in choice.chosen]
        # What is said of them together does not hold: each is drawn alone.
        return Found(
            lambda: iter(subjects),
            len(subjects),
            tuple(choice.warnings),
            tuple(dict.fromkeys(problems)),
            tuple(choice.absent),
        )

    def _named_base(self) -> BaseRef | None:
        name = self._request.options.get("base")
        if name is None:
            return None
        base = self._catalog.find_base(str(name), set())
        if isinstance(base, BaseRef):
            return base
        near = f"Nearest: {', '.join(base.closest)}." if base.closest else "`loravault config` shows where bases are."
        self._problems.append(base.reason or f'There is no base "{name}". {near}')
        return None

    def _is_usable(self, family: str, base: BaseRef | None) -> bool:
        if base is not None:
            return base.family == family
        found = self._catalog.find_base(None, {family})
        return isinstance(found, BaseRef) and found.family == family

    def _some(self, subjects: Iterator[Subject]) -> list[Subject]:
        return list(subjects) if self._is_named else [one for one, _ in zip(subjects, range(self._count), strict=False)]

    # ---- their jobs

    def _looked(self, subjects: Sequence[Subject]) -> list[Looked]:
        known = covers.rendered_fingerprints(self._session, [one.weight_id for one in subjects])
        return [item for subject in subjects for item in self._of_one(subject, known)]

    def _of_one(self, subject: Subject, known: Collection[str]) -> Iterator[Looked]:
        for place, block in enumerate(previews.blocks_of(self._request)):
            used = block or previews.standard_block(subject)
            outcome = previews.resolve(self._request, used, subject, self._catalog)
            same = isinstance(outcome, Resolved) and outcome.fingerprint in known
            yield Looked(
                used,
                outcome,
                frozenset({outcome.fingerprint} if same else ()),
                adapter=subject.weight_id,
                name=subject.name,
                named=subject.named,
                stands=place == 0,
            )

    def _ids(self, run_id: str, weight_id: str) -> set[str]:
        blocks = previews.blocks_of(self._request)
        return {
            job_id(run_id, f"{block.block_hash if block else ''}/{weight_id}", block.ordinal if block else 0)
            for block in blocks
        }

    def _prompts(self, subjects: Sequence[Subject]) -> tuple[str, ...]:
        return () if self._request.blocks else previews.told_prompts(subjects)

    @staticmethod
    def _left(left: int, how: str) -> tuple[str, ...]:
        if left <= 0:
            return ()
        return (f"{left} more {'LoRA has' if left == 1 else 'LoRAs have'} no picture: {how}.",)


def sheet_id(run_id: str, block: Block) -> str:
    """The id of the callout that answers a block for all adapters of a run."""
    return job_id(run_id, block.block_hash, block.ordinal)


def _nothing(found: Found) -> str:
    return " ".join([f"{ALL_SHOWN}.", *found.remarks]).rstrip(".") if found.remarks else ALL_SHOWN


def _told(others: Counter[str], base: BaseRef | None) -> tuple[str, ...]:
    """What is said about adapters that no base fits, once for all of them."""
    if base is not None or not others:
        return ()
    unknown = others.pop("unknown", 0)
    told = []
    if others:
        listed = ", ".join(f"{family} ({count})" for family, count in sorted(others.items()))
        told.append(f"There is no base here for LoRAs without a picture of: {listed}.")
    if unknown:
        told.append(f"Left out, as their family is not known: {unknown}; name them under `loras` to try them.")
    return tuple(told)
