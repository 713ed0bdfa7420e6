"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something in the user's files or settings stops the run.

    The message says what was found, where, and what to do. The command line prints it
    without a traceback; anything else that escapes is a bug and keeps its traceback.
    """


def enumerate_problems(heading: str, problems: list[str], most: int = 20) -> str:
    """Join problems under a heading, one a line; past ``most`` only their number is given."""
    shown = [f"  - {problem}" for problem in problems[:most]]
    if len(problems) > most:
        shown.append(f"  … and {len(problems) - most} more")
    return "\n".join([heading, *shown])
