"""What workers write down: it is there however they end."""

import subprocess
import sys
from pathlib import Path

from llmop.domain.usage import Amount
from llmop.gateway import tally
from llmop.gateway.tally import Accounts, Tally


def test_what_was_written_is_read_and_complete_once_the_worker_is_gone(tmp_path: Path) -> None:
    book = Tally(tmp_path, "a")
    book.of("default/ci", "org/m").used(3, 4, False)
    book.of("default/ci", "org/m").used(5, 6, True)
    book.of("", "m").limited()
    expected = {
        ("default/ci", "org/m"): Amount(requests=2, prompt_tokens=8, completion_tokens=10, estimated=1),
        ("", "m"): Amount(limited=1),
    }
    assert (expected, False) == tally.read(book.file)
    book.close()
    assert (expected, True) == tally.read(book.file)
    assert 0o600 == book.file.stat().st_mode & 0o777


def test_a_file_grows_with_keys_and_models_and_what_stood_there_stays_where_it_was(tmp_path: Path) -> None:
    book = Tally(tmp_path, "a")
    first = book.of("k", "0")
    for number in range(2500):
        book.of("k", str(number)).used(number, 1, False)
    first.used(7, 0, False)
    amounts, _ = tally.read(book.file)
    assert 2500 == len(amounts)
    assert Amount(requests=2, prompt_tokens=7, completion_tokens=1) == amounts["k", "0"]
    assert Amount(requests=1, prompt_tokens=2499, completion_tokens=1) == amounts["k", "2499"]


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from llmop.gateway.tally import Tally
book = Tally(Path(sys.argv[1]), "a")
for _ in range(1000):
    book.of("k", "m").used(2, 3, False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert -9 == ended.returncode
    found = tally.read(tmp_path / "a.tally")
    assert ({("k", "m"): Amount(requests=1000, prompt_tokens=2000, completion_tokens=3000)}, True) == found


def test_names_as_long_as_they_may_be_fit_and_longer_ones_keep_nobody_from_being_served(
    tmp_path: Path,
) -> None:
    accounts = Accounts.begin(tmp_path, "a")
    entry = accounts.entry("n" * 63 + "/" + "k" * 63, "m" * 253)
    assert entry is not None
    entry.used(1, 1, False)
    assert accounts.entry("k", "é" * 300) is None
    amounts, _ = tally.read(tmp_path / accounts.name)
    assert [Amount(requests=1, prompt_tokens=1, completion_tokens=1)] == list(amounts.values())


def test_a_folder_that_cannot_be_written_keeps_nobody_from_being_served(tmp_path: Path) -> None:
    accounts = Accounts.begin(tmp_path / "nowhere", "a")
    assert accounts.entry("k", "m") is None
    assert "" == accounts.name


def test_without_a_folder_nothing_is_written() -> None:
    assert Accounts.begin(None, "a").entry("k", "m") is None
