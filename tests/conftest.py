"""What the tests share: a tiny pair in the hub's own layout, and the real data where a checkout has it beside it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and captions, which stay out of the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real photos and captions are not beside this checkout")
    return SHARED / "data"
