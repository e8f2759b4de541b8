"""Exit codes, and the errors that end a command with one. Codes 1 to 200 are left to what other programs mean by them."""

import enum


class ExitCode(enum.IntEnum):
    """The descriptions are printed in the reference page."""

    OK = 0
    DIFFERENT = 1
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    UNKNOWN = 201
    USAGE = 202
    CONFIG = 203
    NETWORK = 204
    UNAUTHENTICATED = 205
    FORBIDDEN = 206
    BAD_REQUEST = 207
    TIMEOUT = 208
    NOT_FOUND = 209
    ALREADY_EXISTS = 210
    EXPIRED = 211
    CONFLICT = 212
    UNAVAILABLE = 213
    INTERNAL = 214
    TOO_MANY_REQUESTS = 215
    TOO_LARGE = 216
    UNEXPECTED = 217


MEANINGS = {
    ExitCode.OK: "it worked",
    ExitCode.DIFFERENT: "`diff` found a difference; nothing else exits with 1",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
    ExitCode.UNKNOWN: "an error that llmctl does not know",
    ExitCode.USAGE: "wrong flags, arguments or kinds",
    ExitCode.CONFIG: "the context file or an input file cannot be used",
    ExitCode.NETWORK: "the controller cannot be reached",
    ExitCode.UNAUTHENTICATED: "the controller does not know who calls",
    ExitCode.FORBIDDEN: "the caller may not do that",
    ExitCode.BAD_REQUEST: "the manifest or the request is invalid",
    ExitCode.TIMEOUT: "the time given was not enough",
    ExitCode.NOT_FOUND: "there is no such object",
    ExitCode.ALREADY_EXISTS: "an object of this name exists already",
    ExitCode.EXPIRED: "the history asked for is gone",
    ExitCode.CONFLICT: "somebody else changed or owns it, or uses what was to be deleted",
    ExitCode.UNAVAILABLE: "the controller, or what it depends on, is not ready to answer",
    ExitCode.INTERNAL: "the controller failed",
    ExitCode.TOO_MANY_REQUESTS: "the controller is asked too much at once",
    ExitCode.TOO_LARGE: "the message is too large",
    ExitCode.UNEXPECTED: "what was waited for cannot come any more: stalled, or deleted; or a check failed",
}


class CliError(Exception):
    """Ends the command: `str()` goes to stderr as it is."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CliError):
    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}", ExitCode.USAGE)


class ConfigError(CliError):
    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}", ExitCode.CONFIG)


class LaterVersionError(UsageError):
    """A command or kind that a later version will have."""

    def __init__(self, word: str) -> None:
        super().__init__(f'"{word}" is not supported in this version')
