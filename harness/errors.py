"""Exit codes, and the error that ends a command with a message instead of a traceback."""

OK, FAILED, USAGE, NOTHING_RAN, CANNOT_TELL = 0, 1, 2, 3, 4
BROKEN = 70  # an error that nobody foresaw (EX_SOFTWARE of sysexits.h)


class UserError(Exception):
    """Something that the user can mend. The message says what and where, expected and got, and the way out."""

    def __init__(self, message: str, exit_code: int = USAGE):
        super().__init__(message)
        self.exit_code = exit_code


class WorkerDied(Exception):
    """A worker process ended or hung in the middle of a task. `state` is one of the states of a cell, such as `crash:SIGKILL`."""

    def __init__(self, state: str, detail: str):
        super().__init__(f"{state}: {detail}" if detail else state)
        self.state, self.detail = state, detail
