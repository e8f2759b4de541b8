from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent.controller import Authority, FakeController
from tests.integration.agent.rig import TOKEN, Rig


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def controller(authority: Authority) -> Iterator[FakeController]:
    controller = FakeController(authority, TOKEN)
    yield controller
    controller.close()


@pytest.fixture
def lonely(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    """A replica whose controller is away for ever."""
    rig = Rig(tmp_path, authority)
    rig.document["controllerWait"] = 0.3
    yield rig
    rig.close()


@pytest.fixture
def rig(tmp_path: Path, authority: Authority, controller: FakeController) -> Iterator[Rig]:
    """A replica whose controller answers."""
    rig = Rig(tmp_path, authority)
    rig.point_to(controller.url)
    yield rig
    rig.close()
