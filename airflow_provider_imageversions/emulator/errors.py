"""The one exception that becomes an error of the service on the wire."""

from __future__ import annotations


class ApiError(Exception):
    """
    An error that the service answers with.

    :param code: the error code as SDKs show it, such as ``ResourceNotFound``
    :param message: the text for people
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
