"""Flags, environment and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmop.simulator.faults import Fault
from llmop.simulator.options import parse_options


def private(path: Path, text: str = "secret\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_defaults_are_those_of_the_launcher() -> None:
    options = parse_options([], {})
    assert (3000, 128, 2, 4, 5, 4, 90.0, 2_000_000) == (
        options.port,
        options.max_concurrent_requests,
        options.max_best_of,
        options.max_stop_sequences,
        options.max_top_n_tokens,
        options.max_client_batch_size,
        options.graceful_timeout,
        options.payload_limit,
    )


def test_every_flag_is_an_environment_variable_too_and_the_flag_wins() -> None:
    environment = {
        "LLMOP_SIM_PORT": "1",
        "LLMOP_SIM_MODEL_ID": "from-env",
        "LLMOP_SIM_FAULT": "crash@ready slow-load:2",
        "LLMOP_SIM_ADMIN": "true",
        "PORT": "2",
    }
    options = parse_options(["--port", "3"], environment)
    assert (3, "from-env", True) == (options.port, options.model_id, options.admin)
    assert (Fault(action="crash", place="ready"), Fault(action="slow-load", number=2)) == options.faults


def test_the_served_name_is_the_model_id_unless_it_is_given() -> None:
    assert "m" == parse_options(["--model-id", "m"], {}).served_model_name
    assert "s" == parse_options(["--model-id", "m", "--served-model-name", "s"], {}).served_model_name


def test_small_memory_lowers_the_default_limits() -> None:
    options = parse_options(["--kv-tokens", "100"], {})
    assert (100, 99) == (options.max_total_tokens, options.max_input_tokens)


def test_the_key_is_read_from_its_file(tmp_path: Path) -> None:
    key_file = private(tmp_path / "key")
    assert "secret" == parse_options(["--api-key-file", str(key_file)], {}).api_key


def test_a_key_file_that_others_can_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file = private(tmp_path / "key", mode=0o640)
    with pytest.raises(SystemExit) as ended:
        parse_options(["--api-key-file", str(key_file)], {})
    message = capsys.readouterr().err
    assert 2 == ended.value.code
    assert "0640; make it private with chmod 600" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "argument --port: '65536' is not a port number from 0 to 65535"),
        (["--hostname", "node1"], "argument --hostname: 'node1' is not an IP address"),
        (["--max-concurrent-requests", "0"], "'0' is not a whole number above 0"),
        (["--decode-base-ms", "-1"], "argument --decode-base-ms: '-1' is not a number of 0 or more"),
        (["--decode-base-ms", "nan"], "'nan' is not a number of 0 or more"),
        (["--fault", "melt"], "argument --fault: fault 'melt': want one of crash@load"),
        (["--max-input-tokens", "10", "--max-total-tokens", "10"], "--max-input-tokens 10 must be below"),
        (["--kv-tokens", "10", "--max-total-tokens", "20"], "--max-total-tokens 20 is above --kv-tokens 10"),
        (["--api-key-file", "/nonexistent/key"], "cannot read '/nonexistent/key': No such file"),
        (["--api-key", "secret"], "unrecognized arguments: --api-key"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments, {})
    assert 2 == ended.value.code
    assert words in capsys.readouterr().err


def test_an_unknown_setting_in_the_environment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options([], {"LLMOP_SIM_PROT": "1"})
    assert "LLMOP_SIM_PROT is not a setting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("personality", "defaults"),
    [("tgi", (128, 4, 0, 90.0)), ("vllm", (0, 0, 128, 0.0)), ("tei", (512, 32, 0, 86400.0))],
)
def test_each_engine_has_its_own_defaults(personality: str, defaults: tuple[int, int, int, float]) -> None:
    options = parse_options(["--personality", personality], {})
    assert defaults == (
        options.max_concurrent_requests,
        options.max_client_batch_size,
        options.max_batch_size,
        options.graceful_timeout,
    )
    given = parse_options(["--max-concurrent-requests=3"], {"LLMOP_SIM_PERSONALITY": personality})
    assert (personality, 3) == (given.personality, given.max_concurrent_requests)


def test_an_engine_that_it_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--personality", "gpt"], {})
    assert "invalid choice: 'gpt' (choose from 'tgi', 'vllm', 'tei')" in capsys.readouterr().err
