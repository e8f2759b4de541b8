"""llmctl bench run, report and startup."""

from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Duration, Session, common_options, complete_deployments, context_option


@click.group("bench")
def command() -> None:
    """Measure models and engines under load.

    `run` sends requests and says how they were answered, `startup` starts replicas and says how long that took, `report` puts the results
    of several runs beside each other.
    """


@command.command("run", short_help="Send requests and say how they were answered.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Which model, may be repeated; default: the only one there is.",
)
@click.option(
    "--gateway", "gateway_url", metavar="URL", help="Address of the gateway; default: the context's."
)
@click.option(
    "--url",
    metavar="URL",
    help="An engine or any other server instead of a gateway, such as http://HOST:PORT.",
)
@click.option("--key-file", metavar="FILE", help="File with the key; default: the context's.")
@click.option(
    "--api",
    type=click.Choice(["chat", "completions", "tgi"]),
    default="chat",
    help="/v1/chat/completions (default), /v1/completions, or /generate_stream of TGI.",
)
@click.option(
    "--concurrency", metavar="LIST", help="Closed loop: so many streams; default 1,2,4,8,16,32,64,128."
)
@click.option("--rate", metavar="LIST", help="Open loop instead: so many requests per second, such as 1,2,5.")
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    help="With --rate: by chance (default), or one like the other.",
)
@click.option(
    "--trace",
    metavar="NAME",
    help="Open loop instead: the requests of a trace, a CSV file or one of the folder LLMOP_TRACES.",
)
@click.option("--speed", metavar="LIST", help="With --trace: so many times faster; default 1.")
@click.option(
    "--trace-start", type=Duration(), metavar="DURATION", help="With --trace: leave out its beginning."
)
@click.option(
    "--lengths",
    metavar="LIST",
    help="PROMPT:OUTPUT in tokens, default 128:64; several such as 128:64,1024:128.",
)
@click.option(
    "--duration",
    type=Duration(),
    metavar="DURATION",
    help="How long each measurement sends, 20s by default; a trace: to its end.",
)
@click.option(
    "--warm-up",
    type=Duration(),
    metavar="DURATION",
    help="Load before each measurement that does not count, 2s by default; streams begin spread over it. 0: all at once. A trace has none.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Closed loop: end a measurement after so many, if that is sooner.",
)
@click.option(
    "--context-length",
    type=click.IntRange(min=2),
    metavar="N",
    help="With --trace: what the model takes, in tokens; longer requests are shortened.",
)
@click.option(
    "--most-open",
    type=click.IntRange(min=1, max=10_000),
    default=1000,
    metavar="N",
    help="Open loop: so many requests at once, 1000 by default; more wait in llmctl, which counts as their latency.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="5m",
    metavar="DURATION",
    help="A request that takes longer has failed, 5m by default.",
)
@click.option(
    "--ignore-eos",
    is_flag=True,
    help="Ask for whole answers: ignore_eos of vLLM, SGLang and llama.cpp, which others may refuse.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(0.001, 1000),
    metavar="N",
    help="Closed loop: the server is the simulator with this --time-scale; show times and rates of what it stands for.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    metavar="N",
    help="Same prompts and arrivals as another run; new ones by default, of which no server has kept anything.",
)
@click.option("--label", default="", metavar="TEXT", help="What the run is called beside others.")
@click.option(
    "--out",
    "folder",
    metavar="FOLDER",
    help="Write bench.json, bench.csv, bench.html and, of closed loops, bench.svg into this folder.",
)
@context_option
@click.pass_obj
def run(session: Session, /, **given: Any) -> None:
    """Send requests to models and say how they were answered: TTFT, inter-token and end-to-end latency, tokens and requests per second.

    One measurement for every model, length and load, from the lightest load to the heaviest. Ctrl-C ends it and prints what was
    measured so far. The load is real: somebody else's model is loaded too.
    """
    from llmop.cli.bench import asked, measuring

    measuring.measure(session, asked.Given(**given))


@command.command("startup", short_help="Start replicas and say how long it took.")
@click.argument("deployments", nargs=-1, metavar="md/NAME...", shell_complete=complete_deployments)
@click.option(
    "--rounds",
    type=click.IntRange(min=1, max=1000),
    default=3,
    metavar="N",
    help="How often each, 3 by default.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="15m",
    metavar="DURATION",
    help="How long one start may take, with its time in the queue; 15m by default.",
)
@click.option("--gateway", "url", metavar="URL", help="Address of the gateway; default: the context's.")
@click.option("--key-file", metavar="FILE", help="File with the key; default: the context's.")
@click.option("--label", default="", metavar="TEXT", help="What the run is called beside others.")
@click.option(
    "--out", "folder", metavar="FOLDER", help="Write bench.json, bench.csv and bench.html into this folder."
)
@common_options
@click.pass_obj
def startup(
    session: Session,
    deployments: tuple[str, ...],
    rounds: int,
    timeout: float,
    url: str | None,
    key_file: str | None,
    label: str,
    folder: str | None,
) -> None:
    """Start replicas and say how long each step took: submitted, running, engine started, listening, ready, first token.

    Each round applies a copy of the deployment with one replica under another name (NAME-bench-...), asks it for a token through the
    gateway, and deletes it. Name two deployments, such as with and without an image, and they take turns.
    """
    from pathlib import Path

    from llmop.cli.bench import starting
    from llmop.cli.talking import gateway

    if timeout <= 0:
        raise UsageError("--timeout must be more than 0")
    starting.measure(
        session,
        deployments,
        gateway(session, url, key_file, timeout),
        rounds=rounds,
        timeout_s=timeout,
        label=label,
        folder=Path(folder) if folder else None,
    )


@command.command("report", short_help="Put results of several runs side by side.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--out",
    "folder",
    metavar="FOLDER",
    help="Write bench.csv, bench.html and, of closed loops, bench.svg into this folder.",
)
def report(files: tuple[str, ...], folder: str | None) -> None:
    """Put results of several runs, their bench.json, beside each other in one table and one page."""
    import dataclasses
    from pathlib import Path

    from llmop.cli.bench import results
    from llmop.cli.bench.measuring import print_runs, write_reports

    runs = []
    for name in files:
        path = Path(name)
        found = results.read(path)
        label = found.label or (path.parent.name if path.stem == "bench" else path.stem)
        runs.append(dataclasses.replace(found, label=label if len(files) > 1 else found.label))
    print_runs(runs)
    if folder:
        write_reports(Path(folder), runs)
