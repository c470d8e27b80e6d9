"""The one exception a user is meant to read."""


class StudyError(Exception):
    """Bad input, a missing file or a contradiction, told in one message.

    The message names the file or key, says what was expected and how to mend it. The command line
    prints it without a traceback and exits with status 1.
    """
