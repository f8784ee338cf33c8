"""The one exception that means: the user can mend this, and the message says how."""


class UserError(Exception):
    """A mistake in a path, a file, a picture, a flag or a checkpoint.

    The message is one line that names the value, the rule it breaks and the way out. The commands print it and
    end with exit status 2; in a notebook it is the last line of the traceback.
    """


class NoRoomError(UserError):
    """A full disk, on which nothing that comes next could be written either."""
