"""The error that is a message."""


class UserError(Exception):
    """A mistake that the user can mend: one to three lines that say what, where and what to do."""
