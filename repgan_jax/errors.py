"""The one exception a user's mistake ends in."""


class UserError(Exception):
    """A mistake in the input: one line that says what, where, what was expected and what to do.

    Commands catch it, print `error: ...` on standard error and exit with 2; no traceback.
    """


def first_line(error: Exception) -> str:
    """Returns the class of `error` and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
