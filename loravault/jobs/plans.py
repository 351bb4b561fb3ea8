"""What a request comes to, by what the index knows: its names looked up, what stands in its note compared."""

from __future__ import annotations

from sqlmodel import Session

from loravault.index import images, work
from loravault.jobs import planning, trainingplans
from loravault.jobs.catalog import IndexCatalog
from loravault.jobs.context import Context
from loravault.jobs.previews import Previews
from loravault.jobs.reading import ReadNote
from loravault.requests.model import Request


class Plans:
    """Makes the plan of a request of any kind. The catalog is read once and kept until the library changes."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._catalog: IndexCatalog | None = None

    def library_changed(self) -> None:
        """Adapters or bases may have come or gone: names are looked up anew."""
        self._catalog = None

    def tick(self, session: Session, read: ReadNote, request: Request) -> planning.Plan:
        """What an explicit wish to run comes to."""
        if request.kind == "preview":
            return Previews(session, request, self.catalog(session)).tick()
        if request.kind == "train" and not request.problems:
            known = self._fingerprints(session, read).values()
            under_way = [job.fingerprint for job in work.open_jobs(session) if job.note == read.rel]
            catalog, config = self.catalog(session), self._ctx.config
            return trainingplans.tick(request, read, catalog, config, known=known, under_way=under_way)
        return planning.plan_tick(request, self.look_up(session, read, request))

    def recovery(self, session: Session, read: ReadNote, request: Request, run_id: str) -> planning.Plan:
        """The rest of a run that the note waits for and the index does not know."""
        if request.kind == "preview":
            return Previews(session, request, self.catalog(session)).recover(run_id, read.note.regions)
        if request.kind == "train":
            return trainingplans.recover(request, read, self.catalog(session), self._ctx.config, run_id)
        return planning.plan_recovery(request, self.look_up(session, read, request), run_id, read.note.regions)

    def look_up(self, session: Session, read: ReadNote, request: Request) -> list[planning.Looked]:
        """Every block with what it comes to, and what its intact results came from."""
        return planning.look_up(request, read.note, self.catalog(session), self._fingerprints(session, read))

    @staticmethod
    def _fingerprints(session: Session, read: ReadNote) -> dict[str, str]:
        """Job → fingerprint of the intact results that stand in a note."""
        answered = [region.job for region in read.note.regions if region.intact and region.kind == "result"]
        return images.fingerprints_of_jobs(session, answered)

    def catalog(self, session: Session) -> IndexCatalog:
        """The adapters and bases as names."""
        if self._catalog is None:
            self._catalog = IndexCatalog.read(session, self._ctx.config)
        return self._catalog
