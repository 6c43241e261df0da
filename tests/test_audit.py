"""The audit of the locks, with a vulnerability service of this machine."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Service(BaseHTTPRequestHandler):
    """Knows of one package whose versions before 2 are vulnerable (https://ossf.github.io/osv-schema/)."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        vulnerable = {
            "id": "PYSEC-0",
            "aliases": [],
            "affected": [
                {
                    "package": {"name": "leaky", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}],
                    "versions": ["1.5"],
                }
            ],
        }
        answer = json.dumps({"vulns": [vulnerable]} if asked["package"]["name"] == "leaky" else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(folder: Path, pins: str, address: str, *more: str) -> tuple[int, str]:
    (folder / "lock.txt").write_text(pins)
    options = ["--vulnerability-service", "osv", "--osv-url", address, *more]
    done = subprocess.run(
        [sys.executable, ROOT / "locks" / "audit.py", "--requirement", folder / "lock.txt", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout or done.stderr


def test_what_is_known_to_be_vulnerable_is_named_with_the_version_that_mends_it(tmp_path: Path, address: str) -> None:
    assert audit(tmp_path, "leaky==1.5\nsound==1.0\n", address) == (
        1,
        "leaky 1.5: PYSEC-0, mended in 2\npackages audited: 2, vulnerable: 1\n",
    )


def test_where_nothing_is_known_it_says_how_much_was_asked(tmp_path: Path, address: str) -> None:
    assert audit(tmp_path, "sound==1.0\n", address) == (0, "packages audited: 1, vulnerable: 0\n")


def test_a_service_that_is_not_reached_is_no_failure_and_no_result(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "sound==1.0\n", "http://127.0.0.1:9/v1/query", "--timeout", "1")
    assert code == 0
    assert said.startswith("nothing was audited: the vulnerability service could not be asked (")


def test_a_wrong_option_is_a_failure(tmp_path: Path, address: str) -> None:
    code, said = audit(tmp_path, "sound==1.0\n", address, "--nonsense")
    assert code == 2
    assert "--nonsense" in said
