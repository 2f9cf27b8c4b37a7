"""Permanent errors of request bodies."""


class RequestTooLarge(Exception):
    """The request is over a limit; a retry cannot help. The message names the limit."""


class MalformedRequest(Exception):
    """The body is not what its content type says; the message says what is wrong, without quoting it."""
