import pytest
from tests.unit.channel.desk_rig import Rig


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.start()
    return rig
