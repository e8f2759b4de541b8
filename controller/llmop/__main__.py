"""`python -m llmop`: the command `llmop`."""

from llmop.main import main

main()
