"""What the tests of channels share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notify.servers import make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1 and localhost."""
    return make_certificate(tmp_path_factory.mktemp("tls"))
