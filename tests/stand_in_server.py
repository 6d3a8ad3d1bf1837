"""An OpenAI-compatible server that says what a test tells it to."""

import http.server
import json
import threading


class Server:
    """Answers `POST /v1/chat/completions` by `answer(body, attempt)`: a dict, or `(status, body, headers)`."""

    def __init__(self, answer):
        self.bodies, self.headers, self.attempts = [], [], {}
        self.under_way = self.most_under_way = 0
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                text = str(body["messages"][-1]["content"])
                with lock:
                    self.bodies.append(body)
                    self.headers.append(handler.headers)  # in whose names case does not count
                    self.attempts[text] = self.attempts.get(text, 0) + 1
                    self.under_way += 1
                    self.most_under_way = max(self.most_under_way, self.under_way)
                found = answer(body, self.attempts[text])
                with lock:
                    self.under_way -= 1
                status, said, headers = found if isinstance(found, tuple) else (200, found, {})
                handler.send_response(status if handler.path == "/v1/chat/completions" else 404)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

            def log_message(handler, *args):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(listener, request, client_address):
                """A client that stopped waiting is part of the test."""

        self.http = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def completion(text="<answer>A</answer>", reason="stop", **message):
    return {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 70, "completion_tokens": 9},
    }
