"""How long a connection may take over what it does."""

import pytest

from llmop.gateway import patience
from llmop.gateway.patience import BODY, CLOSING, HEAD, IDLE, LINGER, Lull, Verdict
from llmop.gateway.settings import Timeouts

TIMEOUTS = Timeouts(head=10, body_idle=30, keep_alive=60, linger=2, stream_idle=300)
FINE, OVER = Verdict.FINE, Verdict.OVER


@pytest.mark.parametrize(
    "phase, waited, silent, received, farewell, expected",
    [
        pytest.param(IDLE, 60, 60, 0, False, FINE, id="idle"),
        pytest.param(IDLE, 61, 61, 0, False, OVER, id="idle too long"),
        pytest.param(HEAD, 10, 0, 0, False, FINE, id="a head"),
        pytest.param(HEAD, 11, 0, 0, False, Verdict.SLOW_HEAD, id="a slow head, whatever comes of it"),
        pytest.param(BODY, 29, 29, 0, False, FINE, id="a body"),
        pytest.param(BODY, 31, 31, 1 << 20, False, Verdict.SLOW_BODY, id="a body that stopped"),
        pytest.param(BODY, 31, 1, 30 * 1024, False, Verdict.SLOW_BODY, id="a body that trickles"),
        pytest.param(BODY, 31, 1, 32 * 1024, False, FINE, id="a large body"),
        pytest.param(LINGER, 2, 2, 0, False, FINE, id="the rest is thrown away"),
        pytest.param(LINGER, 3, 3, 0, False, OVER, id="the rest has no end"),
        pytest.param(CLOSING, 300, 300, 0, False, FINE, id="an answer is still being read"),
        pytest.param(CLOSING, 301, 301, 0, False, Verdict.SLOW_READER, id="an answer is not read"),
        pytest.param(CLOSING, 3, 3, 0, True, OVER, id="a farewell that is not answered"),
        pytest.param(CLOSING, 2, 2, 0, True, FINE, id="a farewell"),
    ],
)
def test_who_is_too_slow_goes(
    phase: int, waited: float, silent: float, received: int, farewell: bool, expected: Verdict
) -> None:
    lull = Lull(phase=phase, waited=waited, silent=silent, received=received, farewell=farewell)
    assert expected is patience.judge(lull, TIMEOUTS)
