"""The process of one GPU: every unit in turn, on whole numbers and on full mantissas, until its time is up."""

from __future__ import annotations

import os
import time
from pathlib import Path

from burnin.child import Reporter
from burnin.device.cuda import Cuda, CudaError, CudaHungError, CudaUnavailableError
from burnin.device.kernels import Kernels
from burnin.gemm.findings import Findings, UnitFindings, document, rounded, say
from burnin.gemm.products import PATIENCE_S, Gemm, Values
from burnin.gemm.units import UNITS, Unit
from burnin.record import Outcome

NAME = "gemm"
_PROGRESS_S = 0.5
_NEVER_RAN = "kernel never ran on this chip"


class Products:
    """All units of one GPU. `found` holds what is known, also when an error ends it."""

    def __init__(self, cuda: Cuda, report: Reporter, seed: str, seconds: float, patience_s: float) -> None:
        self.found = Findings()
        self._report = report
        self._seconds = seconds
        self._said = 0.0
        self._done, self._text = 0.0, "starting"
        kernels = Kernels(cuda)
        self.found.sms = kernels.sms
        self.gemm = Gemm(cuda, kernels, seed, self._serve, patience_s)

    def run(self, *, unproven: bool) -> None:
        """Exercise what this GPU has. Raises CudaError and CudaHungError, of proven code only."""
        new = [u for u in UNITS if self.gemm.possible(u) and not self.gemm.proven(u)]
        for unit in UNITS:
            if not self.gemm.possible(unit):
                self.found.left_out[unit.name] = "no kernel for this chip"
        self.found.left_out |= {u.name: _NEVER_RAN for u in new}
        plan = [*self.gemm.units, *(new if unproven else ())]
        for number, unit in enumerate(plan):
            self._done = number / len(plan)
            found = UnitFindings(unit.name, self.gemm.shape(unit).text())
            if unit in new:
                self._try(unit, found, self._seconds / len(plan))
            else:
                self.found.units.append(found)
                self._exercise(unit, found, self._seconds / len(plan))

    def _try(self, unit: Unit, found: UnitFindings, seconds: float) -> None:
        """What fails here may be our code's fault: it is noted, and held against no GPU."""
        self.found.unproven.append(found)
        del self.found.left_out[unit.name]
        try:
            self._exercise(unit, found, seconds)
        except (CudaError, CudaHungError) as error:
            self.found.left_out[unit.name] = f"unproven kernel failed: {error.word}"
        self.found.judge_unproven()

    def _exercise(self, unit: Unit, found: UnitFindings, seconds: float) -> None:
        for values in Values:
            self._text = f"{unit.name}, {'whole numbers' if values is Values.WHOLE else 'full mantissas'}"
            self._serve()
            self._rotate(unit, values, found, seconds / len(Values))
        found.completed = True

    def _rotate(self, unit: Unit, values: Values, found: UnitFindings, seconds: float) -> None:
        """One full rotation, then more until `seconds` are spent."""
        limit = time.monotonic() + seconds
        self.gemm.prepare(unit, values)
        counted = self.gemm.counted()
        left = self.gemm.shape(unit).tiles
        try:
            while left > 0:
                left -= self._launch(unit, found, left)
                counted = self.gemm.counted()
            if values is Values.ANY:
                found.seal(counted.digest_sum)
            while time.monotonic() < limit:
                self._launch(unit, found, self.gemm.iterations_per_launch)
                counted = self.gemm.counted()
        finally:  # what was wrong before an error is known all the same
            found.add(counted, self.gemm.reference)

    def _launch(self, unit: Unit, found: UnitFindings, most: int) -> int:
        iterations = min(most, self.gemm.iterations_per_launch)
        seconds = self.gemm.timed(unit, iterations)
        self._serve()
        if seconds > 0:
            found.tflop_per_s.append(rounded(iterations * self.gemm.shape(unit).operations / seconds / 1e12))
        return iterations

    def _serve(self) -> None:
        """Say where we are, twice a second."""
        now = time.monotonic()
        if now - self._said >= _PROGRESS_S:
            self._said = now
            self._report.progress(self._done, self._text)


def run(
    report: Reporter,
    pci: str,
    *,
    seed: str,
    seconds: float,
    unproven: bool = False,
    folder: Path,
    prefix: str = "",
    patience_s: float = PATIENCE_S,
) -> int:
    """Report records on standard output and `<folder>/<prefix>gemm_gpuN.json`.

    The same `seed` on GPUs of one kind gives the same `gemm_digest`. `unproven` also runs kernels that never ran on
    such a chip. Work that does not end within `patience_s`, or 20 times what it should take, hangs; then this does not
    return, because nothing could be cleaned up.
    """
    products: Products | None = None
    try:
        cuda = Cuda()
        with cuda.gpu(pci):
            products = Products(cuda, report, seed, seconds, patience_s)
            products.run(unproven=unproven)
            _conclude(report, products, folder, prefix, "ok")
            report.ended(Outcome.COMPLETED)
    except CudaUnavailableError as error:
        report.ended(Outcome.UNAVAILABLE, str(error))
    except CudaHungError as error:
        _conclude(report, products, folder, prefix, error.word)
        report.ended(Outcome.CRASHED, str(error))
        os._exit(0)
    except CudaError as error:
        _conclude(report, products, folder, prefix, error.word)
        report.ended(Outcome.UNAVAILABLE if error.unavailable else Outcome.CRASHED, str(error))
    return 0


def _conclude(report: Reporter, products: Products | None, folder: Path, prefix: str, word: str) -> None:
    if products is not None:
        evidence = folder / f"{prefix}gemm_gpu{report.gpu}.json"
        evidence.write_text(document(products.found))
        report.artifact(evidence)
        say(report, products.found)
    report.measured("cuda_result", "word", word)
