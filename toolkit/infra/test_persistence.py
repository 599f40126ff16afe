"""Persistence: the driver stays loaded between jobs."""

from __future__ import annotations

import pytest

from toolkit.infra.areas import PERSISTENCE, gates_of
from toolkit.infra.questions import Answered, asks


@pytest.mark.smoke
@asks(gates_of(PERSISTENCE))
def test_gate(answer: Answered) -> None:
    """A gate of the profile about persistence mode or its daemon."""
    answer.holds()
