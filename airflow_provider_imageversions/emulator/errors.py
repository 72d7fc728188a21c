"""The exception that becomes a SageMaker error on the wire."""

from __future__ import annotations


class ApiError(Exception):
    """
    An error that SageMaker returns.

    :param code: the error code as SDKs show it, such as ``ResourceNotFound``
    :param message: the text for people
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
