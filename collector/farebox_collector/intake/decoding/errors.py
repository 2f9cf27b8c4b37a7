"""Why a body is refused for good."""


class RequestTooLarge(Exception):
    """The request is over a limit and always will be; the message says which."""


class MalformedRequest(Exception):
    """The body is not what its content type says; the message says what is wrong, without quoting it."""
