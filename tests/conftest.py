"""What holds for every tier."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that: Ctrl-C could not be
# tried. A signal with a handler goes back to its default in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)
