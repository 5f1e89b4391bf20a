"""The error that every part of serving raises, and its HTTP status."""

__all__ = ["HTTP_STATUS", "ServingError", "invalid"]

# gRPC's status codes by name, mapped to HTTP as TensorFlow Serving maps them.
HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class ServingError(Exception):
    """A request, a model or a configuration that cannot be served.

    Attributes:
        code: The name of a gRPC status code, such as `"NOT_FOUND"`.
        message: The text for the client.
        http_status: The HTTP status for that code.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status for `code`."""
        return HTTP_STATUS[self.code]


def invalid(message: str) -> ServingError:
    """Returns the error for a malformed request: INVALID_ARGUMENT, or 400 over HTTP."""
    return ServingError("INVALID_ARGUMENT", message)
