"""One module per command of llmctl, imported when the command is called."""
