"""What a person is told when a command cannot do what it was asked."""


class CommandError(Exception):
    """Ends the command: the message goes to stderr, without a traceback. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
