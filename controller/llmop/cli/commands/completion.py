"""llmctl completion."""

import click

from llmop.cli.session import out


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes a shell complete commands, options, types and names of objects.

    \b
    bash:  source <(llmctl completion bash)
    zsh:   source <(llmctl completion zsh)
    fish:  llmctl completion fish | source
    """
    import click.shell_completion

    from llmop.cli import main
    from llmop.cli.errors import CliError, ExitCode

    found = click.shell_completion.get_completion_class(shell)
    assert found is not None
    try:
        source = found(main.llmctl, {}, "llmctl", main.COMPLETE_VARIABLE).source()
    except RuntimeError as error:  # click asks bash for its version, and wants 4.4 or newer
        raise CliError(f"error: {error}", ExitCode.CONFIG) from error
    out(source.rstrip("\n"))
