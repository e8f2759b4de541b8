"""The entry point of the program llmctl: what it pays before it knows what it is asked for."""

import gc
import sys


def main() -> None:
    """Runs llmctl and ends the process.

    `version --client` asks nobody and is what scripts run to see whether there is an llmctl: it needs no parser of options.
    """
    if sys.argv[1:] == ["version", "--client"]:
        import llmop

        print(f"Client Version: {llmop.__version__}")
        return
    # Importing gRPC and protobuf makes so many objects that looking for cycles among them takes a twelfth of a short command's time.
    gc.set_threshold(100_000, 50, 50)
    from llmop.cli.main import main as run

    run()
