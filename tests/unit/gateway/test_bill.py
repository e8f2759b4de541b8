"""What a key uses of a model: held back, counted, written down, and given back where it was not used."""

from pathlib import Path

from llmop.domain.client import ClientKey, Limits
from llmop.domain.usage import Amount
from llmop.gateway import tally
from llmop.gateway.bill import NOTHING, Bill
from llmop.gateway.limiter import Exceeded, Limiter
from llmop.gateway.limits import Lengths
from llmop.gateway.metrics import Counts, ModelCounts
from llmop.gateway.tally import Accounts
from llmop.gateway.usage import Usage

ASKED = {"max_tokens": 90}
BODY = b'{"max_tokens":90}' + b" " * 23  # 10 tokens and 90


class Desk:
    def __init__(self, folder: Path, limits: Limits, *, shadow: bool = False) -> None:
        self.folder = folder
        self.key = ClientKey(name="default/a", digest="0" * 64, limits=limits, shadow=shadow)
        self.limiter = Limiter()
        self.limiter.grant((self.key,), 0.0)
        self.counts = Counts()
        self.of_model = ModelCounts()
        self.accounts = Accounts.begin(folder, "a")
        self.bill = self.make()

    def make(self) -> Bill:
        return Bill(
            self.key,
            "m",
            counts=self.counts,
            of_model=self.of_model,
            lengths=Lengths(),
            limiter=self.limiter,
            accounts=self.accounts,
        )

    def written(self) -> Amount:
        return tally.read(self.folder / self.accounts.name)[0]["default/a", "m"]


def test_a_key_without_limits_holds_nothing_and_is_counted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits())
    assert NOTHING == desk.bill.reserve(BODY, ASKED, 0.0, True)
    desk.bill.answered(NOTHING, 3, 4, False)
    assert Amount(requests=1, prompt_tokens=3, completion_tokens=4) == desk.written()


def test_what_was_held_and_not_used_may_be_used_by_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(tokens_per_minute=150))
    held = desk.bill.reserve(BODY, ASKED, 0.0, True)
    assert 100 == held
    assert isinstance(desk.bill.reserve(BODY, ASKED, 0.0, True), Exceeded)
    desk.bill.answered(100, 10, 20, False)
    assert 100 == desk.bill.reserve(BODY, ASKED, 0.0, True)
    desk.bill.settle(100, None)  # it came to nothing
    assert Amount(requests=1, prompt_tokens=10, completion_tokens=20, limited=1) == desk.written()


def test_no_claim_locks_the_other_requests_of_a_key_out_for_longer_than_a_minute(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(tokens_per_minute=150))
    assert 150 == desk.bill.reserve(BODY, {"max_tokens": 999_999_999}, 0.0, True)
    desk.bill.settle(150, None)
    assert 100 == desk.bill.reserve(BODY, ASKED, 0.0, True)


def test_whoever_is_beyond_a_limit_is_counted_by_what_became_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(requests_per_minute=1), shadow=True)
    assert 0 == desk.bill.reserve(BODY, ASKED, 0.0, True)
    found = desk.bill.reserve(BODY, ASKED, 0.0, True)
    assert isinstance(found, Exceeded)
    assert found.shadow
    assert {"refused": 0, "shadow": 1} == desk.counts.limited["requests"]
    assert 1 == desk.written().limited


def test_a_bill_outlives_the_limits_it_was_made_with(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Limits(parallel_requests=1))
    assert 0 == desk.bill.reserve(BODY, ASKED, 0.0, True)
    desk.limiter.grant((), 0.0)
    assert NOTHING == desk.make().reserve(BODY, ASKED, 0.0, True)
    desk.bill.settle(0, Usage(1, 1))
    assert 0 == desk.bill.reserve(BODY, ASKED, 0.0, True)
