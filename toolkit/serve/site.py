"""What every page reads from: one ledger, one board, one clock, for as long as the server runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from toolkit import __version__
from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import CertificateRefusedError
from toolkit.certificate.trust import Trust
from toolkit.certificate.verify import verify
from toolkit.errors import RackproofError, UndecidedError, UsageError
from toolkit.ledger import ArtifactError, Lease, Ledger
from toolkit.pool.recert_file import Beliefs, load_beliefs
from toolkit.report.in_force import own_trust
from toolkit.report.metrics import MAX_GATE_VALUES, exposition, families
from toolkit.report.metrics_snapshot import Reader
from toolkit.report.progress import Progress, progress_file, read_progress
from toolkit.serve.board import Board
from toolkit.serve.designs import Designs
from toolkit.serve.seats import SeatIndex
from toolkit.settings import Settings

_MOST_PROOFS = 256


@dataclass(slots=True)
class Site:
    """Made once. Safe for threads."""

    settings: Settings
    ledger: Ledger
    clock: Callable[[], datetime]
    designs: Designs = field(init=False)
    board: Board = field(init=False)
    seats: SeatIndex = field(init=False)
    _reader: Reader = field(init=False)
    _scraping: threading.Lock = field(default_factory=threading.Lock)
    _proofs: dict[tuple[str, str], Verified | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.designs = Designs(self.settings.inventory)
        self.board = Board(self.ledger, self.designs, self.clock)
        self.seats = SeatIndex(self.ledger)
        self._reader = Reader(self.ledger, self.designs.rack, self.clock, MAX_GATE_VALUES)

    def metrics(self, *, openmetrics: bool) -> bytes:
        """All metrics, as Prometheus reads them. One scrape at a time: the reader keeps what it read once."""
        with self._scraping:
            beliefs = self.beliefs()
            self._reader.limit_s = beliefs.oldest_hours.value * 3600 if beliefs else None
            return exposition(families(self._reader.snapshot(), __version__), openmetrics=openmetrics)

    def beliefs(self) -> Beliefs | None:
        """The site's recert.yml; None where it does not read."""
        try:
            return load_beliefs(self.settings)
        except UsageError:
            return None

    def progress(self, rack: str, driver: Lease | None) -> Progress | None:
        """What the process that drives the rack says, if it is told here: it may run on another machine."""
        found = read_progress(progress_file(self.settings, rack)) if driver else None
        return found if found and driver and found.holder == driver.holder and found.rack == rack else None

    def proof(self, digest: str) -> Verified | str:
        """The certificate of that sha256, its signature verified by this installation's trust; or why not.

        Looked at anew every minute: certificates expire, and keys are retired.
        """
        now = self.clock()
        key = digest, f"{now:%Y-%m-%dT%H:%M}"
        if key not in self._proofs:
            while len(self._proofs) >= _MOST_PROOFS:
                del self._proofs[next(iter(self._proofs))]
            self._proofs[key] = self._verified(digest, now)
        return self._proofs[key]

    def _verified(self, digest: str, now: datetime) -> Verified | str:
        try:
            trust: Trust | None = own_trust(self.settings.keys, now)
            if trust is None:
                return "it cannot be verified: this installation has no key"
            return verify(self.ledger.artifacts.get(digest), trust, now)
        except (CertificateRefusedError, ArtifactError, UndecidedError, UsageError) as refused:
            return refused.message
        except OSError as failure:
            return f"it cannot be read here: {failure.strerror}"


def problem_of(failure: RackproofError) -> tuple[int, str, str]:
    """(HTTP status, what failed, what next) of an error of ours."""
    status = 404 if isinstance(failure, UsageError) else 503 if isinstance(failure, UndecidedError) else 500
    return status, failure.message, failure.hint
