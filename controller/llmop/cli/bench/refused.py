"""What a model's failed first request means, in a sentence with what to do. Pure."""

import orjson

from llmop.cli import talking
from llmop.cli.bench.measures import Sample
from llmop.cli.errors import CliError, ExitCode

_ADVICE = {
    "status 401": "--key-file names the file with its key",
    "status 403": "this key may not use it; --key-file names the file of another one",
    "status 404": "-m names a model that the server has, --api an API that it speaks",
    "connect": "--url or --gateway names a server that runs",
    "timeout": "--timeout allows more",
    "no token": "--api names an API that the server speaks",
    "protocol": "--api names an API that the server speaks",
}


def error(model: str, url: str, path: str, sample: Sample) -> CliError:
    """`sample` has failed; `path` is where it was asked."""
    status = sample.error.removeprefix("status ")
    code = ExitCode.UNAVAILABLE
    if status.isdecimal():
        code = talking.code_of(int(status))
    elif sample.error == "connect":
        code = ExitCode.NETWORK
    elif sample.error == "timeout":
        code = ExitCode.TIMEOUT
    words = _words(sample.message)
    said = f": {words}" if words else ""
    advice = f"; {_ADVICE[sample.error]}" if sample.error in _ADVICE else ""
    return CliError(
        f"error: {model} does not answer at {url}{path}, so nothing was measured: {sample.error}{said}{advice}",
        code,
    )


def _words(message: str) -> str:
    """The sentence of an error's body, which engines put in different places; what is no JSON as it is."""
    try:
        found = orjson.loads(message)
    except orjson.JSONDecodeError:
        return message
    for _ in range(2):
        if isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or ""
    return found if isinstance(found, str) and found else message
