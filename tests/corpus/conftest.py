"""Fixtures of the tests of the corpus."""

from __future__ import annotations

import pytest

from tests.api.conftest import api, fresh_counts, kit, program
from tests.corpus import EXAMPLES, SEED

__all__ = ["api", "fresh_counts", "kit", "program"]


@pytest.fixture(autouse=True)
def said_seed() -> None:
    """Print the seed: pytest shows it with a failure."""
    if EXAMPLES:
        print(f"CORPUS_EXAMPLES={EXAMPLES} CORPUS_SEED={SEED}")
