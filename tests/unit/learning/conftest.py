"""The packed study, trained once for all tests that look at it."""

import pytest
from packed_study import Packed, write_study


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A study with its package. A test that packs anew must leave it as it was."""
    return write_study(tmp_path_factory.mktemp("packed"))
