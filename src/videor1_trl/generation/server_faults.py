"""How a server fails a request or a whole run; without openai's client, which is imported only where a server is asked."""


class ServerError(RuntimeError):
    """The server is not there, refuses every request, or fails one after the other."""


class Refused(Exception):
    """The server does not take this request."""


class GivenUp(Exception):
    """The server failed on this request at every try."""
