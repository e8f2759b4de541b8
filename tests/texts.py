"""Texts that a careless program would run, cut or lose."""

HOSTILE = [
    "plain",
    "two words",
    "it's",
    'double " quote',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "$HOME ${HOME} $1 $$",
    "back\\slash\\",
    "line one\nline two",
    "*?[a-z]~",
    "naïve — 模型 🦙",
    "-dash",
    "--config=/etc/passwd",
    "!history!",
    "",
    "&& touch pwned || |",
    "\x1f\x1e\x07",
]
# What a manifest may hold somewhere, some with the beginning that paths and references need.
WRITTEN = [
    *(text for text in HOSTILE if text != "\x1f\x1e\x07"),
    "/$(touch pwned)/`touch pwned`",
    "/it's; touch pwned #",
    "file:///models/$(touch pwned) `touch pwned`'\"",
    "--x=$(touch pwned)",
    "--comment=a\n#SBATCH --uid=0",
    "{scratch} {{port}} {nobody}",
    "<(touch pwned)>pwned",
    "%j%n$'\\n'",
    "\u202e\u200b\u0430",
    "\t\r",
]
