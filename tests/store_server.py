"""Stores on this machine: moto's S3 and a plain HTTP server of files, each behind a layer that counts bytes and makes faults."""

import contextlib
import logging
import threading
import time
from pathlib import Path

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import NotFound
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_from_directory

from videor1_trl.media.isolation import end_all


logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args, **kwargs):
        pass


class Server:
    """
    An application behind a port of its own. `asked` are the requests, `(method, path, range)`, `sent` the bytes of all bodies.

    `fault(method, path, attempt)` says what becomes of a request: `None`, a status, `("wait", seconds)`, or `"cut"`: half of it comes.
    """

    def __init__(self, application):
        self.asked, self.sent, self.fault = [], 0, lambda method, path, attempt: None
        self._application = application
        self.http = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path, environ.get("HTTP_RANGE")))
        attempt = sum(each[:2] == (method, path) for each in self.asked)
        fault = self.fault(method, path, attempt)
        if isinstance(fault, int):
            start_response(f"{fault} Fault", [("Content-Length", "0"), ("Connection", "close")])
            return []
        if isinstance(fault, tuple):
            time.sleep(fault[1])
        found = []

        def begin(status, headers, *rest):
            found[:] = [status, [*headers, ("Connection", "close")]]
            return lambda data: None

        body = b"".join(self._application(environ, begin))
        start_response(*found)
        if method == "HEAD":
            return []
        self.sent += len(body)
        return [body[: len(body) // 2] if fault == "cut" else body]

    def reset(self):
        self.asked, self.sent, self.fault = [], 0, lambda method, path, attempt: None

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def files_of(folder, ranges=True):
    """An application that serves a folder, by ranges or without."""

    def application(environ, start_response):
        if not ranges:
            environ = {name: value for name, value in environ.items() if name != "HTTP_RANGE"}
        try:
            response = send_from_directory(Path(folder), environ["PATH_INFO"].lstrip("/"), environ)
        except NotFound as error:
            response = error
        return response(environ, start_response)

    return application


@contextlib.contextmanager
def s3(monkeypatch):
    """moto's S3 with a bucket `videos`, which s3fs finds by the environment; `put(name, data)` stores an object."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIASECRET",
        "AWS_SECRET_ACCESS_KEY": "hidden/secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    server = Server(DomainDispatcherApplication(create_backend_app))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    end_all()  # processes that decode have the environment of their beginning
    client = boto3.client("s3", endpoint_url=server.url)
    client.create_bucket(Bucket="videos")
    server.put = lambda name, data: client.put_object(Bucket="videos", Key=name, Body=data)
    try:
        yield server
    finally:
        server.close()
        end_all()
