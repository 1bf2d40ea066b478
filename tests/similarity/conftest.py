import pair_family
import pytest


@pytest.fixture(scope="session")
def oracle():
    """What the reductions give by hand."""
    return pair_family.by_hand()
