"""One gateway and one backend for a file's tests: starting a process for each would cost a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import Backend, answer_ok
from tests.gateway import Gateway


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A worker with one backend `api`, a static key, no database and no Redis."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    environment = {"BACKEND_URLS": f"api={shared_backend.url}", "BACKEND_TIMEOUT": "2", "BACKEND_CONNECT_TIMEOUT": "1"}
    environment["VALID_API_KEYS"] = "sk_test_abc123:org_1:enterprise"
    with Gateway(folder, environment) as running:
        yield running


@pytest.fixture
def backend(shared_backend: Backend) -> Backend:
    """The shared backend, as if new: it answers `ok` and has seen nothing. Tests replace `script` at will."""
    shared_backend.script = answer_ok
    shared_backend.drop_idle()
    shared_backend.requests.clear()
    return shared_backend
