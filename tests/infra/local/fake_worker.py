"""A worker that only says that it is ready, or dies as told. Run as a script."""

import argparse
import http.server
import pathlib
import sys


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer 200 to everything."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name that the library gives
        """Say nothing."""


def main() -> int:
    """Serve on a free port and write it, or exit as ``--die`` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http-port-file", type=pathlib.Path, required=True)
    parser.add_argument("--die", type=int)
    arguments = parser.parse_args()
    if arguments.die is not None:
        sys.stderr.write("the fake worker was told to die\n")
        return int(arguments.die)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ready)
    beside = arguments.http_port_file.with_suffix(".part")
    beside.write_text(str(server.server_port), encoding="ascii")
    beside.replace(arguments.http_port_file)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
