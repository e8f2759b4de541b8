"""What the hub's library is told."""

import subprocess
import sys

SCRIPT = """
from pathlib import Path
from llmop.artifacts import hub
hub.prepare_environment(Path("/nowhere"))
from huggingface_hub import constants
from huggingface_hub.utils._runtime import is_xet_available
before = is_xet_available()
hub.allow_xet()
print(before, is_xet_available(), constants.HF_HUB_OFFLINE, constants.HF_HOME, constants.ENDPOINT)
"""


def test_its_own_client_is_used_only_where_plain_http_is_not_enough() -> None:
    """In a process of its own: the library reads its environment once."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://elsewhere", "HF_HUB_DISABLE_XET": "0"},
    )

    assert "False True False /nowhere https://huggingface.co" == done.stdout.strip()
