"""What may listen at `--scheduler ADDRESS` beside a scheduler: the command ends, and says which it was."""

from __future__ import annotations

import datetime
import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import time

import dask
import pytest

from bigmm.cli import cluster, listener
from bigmm.execute import executor
from tests.cli.cases import SLEEP
from tests.execute.processes import Processes
from tests.servers import serving

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(cluster, "CLOSE_SECONDS", 1)


def test_75_a_silent_listener(bigmm, sleep_lake):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        for command in (("fit",), ("plan",)):
            ended = bigmm(*command, SLEEP, sleep_lake, "--scheduler", address)
            assert ended.code == 75
            assert f"answers at {address} (something takes connections there and says nothing" in ended.err


def test_75_a_listener_that_says_a_byte_a_second():
    """The deadline is for the whole greeting, however slowly it comes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30.0)
        theirs.sendall(b"1")
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            listener._first_bytes(ours, begun)
        assert time.monotonic() - begun < 30.0


@pytest.mark.parametrize("server", [http.server.HTTPServer, http.server.ThreadingHTTPServer])
def test_75_an_http_server(bigmm, sleep_lake, server):
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with serving(server(("127.0.0.1", 0), Quiet)) as address:
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", f"tcp://{address}")
    assert ended.code == 75
    assert "an HTTP server answers there; is it the port of the dashboard?" in ended.err


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220\r\n", b""])
def test_75_something_else_that_speaks_first_or_hangs_up(bigmm, sleep_lake, greeting):
    class Greeting(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(greeting)

    with serving(socketserver.TCPServer(("127.0.0.1", 0), Greeting)) as address:
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", f"tcp://{address}")
    assert ended.code == 75
    assert "something else answers there" in ended.err


def test_75_a_stopped_scheduler(bigmm, sleep_lake, tmp_path):
    with Processes(tmp_path, 0) as processes:
        processes.client().close()
        processes.scheduler.send_signal(signal.SIGSTOP)
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", processes.address)
        assert ended.code == 75
        assert "says nothing: a scheduler that is stopped" in ended.err


SCRIPT = """
import sys
from bigmm.cli import cluster, listener
from bigmm.execute import executor
from tests.cli.cases import SLEEP
from bigmm.execute.dask import watchdog
executor.__kwdefaults__["no_worker_seconds"] = 2
watchdog.CHECK_SECONDS, watchdog.ANSWER_SECONDS, cluster.CLOSE_SECONDS = .2, 1, 1
from bigmm.cli.app import main
main(sys.argv[1:])
"""


def test_75_a_scheduler_that_is_stopped_while_there_are_no_workers(project, sleep_lake, tmp_path):
    """The whole command, up to the end of its process: nothing at exit waits for the scheduler."""
    processes = Processes(tmp_path, 0)
    try:
        with processes.client() as client:
            command = ["fit", SLEEP, str(sleep_lake), "--scheduler", processes.address, "--log", "json"]
            environment = os.environ | {"PYTHONPATH": str(project)}
            child = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.clients)) < 3:  # one is Dask's own
                assert child.poll() is None, child.stderr.read()
                time.sleep(0.02)
        processes.scheduler.send_signal(signal.SIGSTOP)
        errors = child.communicate(timeout=60)[1]
        assert child.returncode == 75, errors
        assert "not answered for 2 s" in errors or "has had no workers for 2 s" in errors
    finally:
        processes.close()


def certificate(folder, name):
    """A certificate that signs itself, and its key: each is an authority of its own."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    signed = builder.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    clear = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(key.private_bytes(*clear))


def tls(folder, authority, name):
    """Dask's configuration of a client."""
    files = {"ca-file": f"{authority}.pem", "client.cert": f"{name}.pem", "client.key": f"{name}.key"}
    return dask.config.set({f"distributed.comm.tls.{key}": str(folder / file) for key, file in files.items()})


@pytest.fixture
def encrypted(tmp_path):
    """The address of a scheduler that speaks TLS."""
    for name in ("ours", "theirs"):
        certificate(tmp_path, name)
    files = ("--tls-ca-file", "ours.pem", "--tls-cert", "ours.pem", "--tls-key", "ours.key")
    with Processes(tmp_path, 0, ("--protocol", "tls", *files)) as processes:
        yield processes.address


def test_78_only_one_side_speaks_tls_or_a_certificate_is_refused(bigmm, sleep_lake, tmp_path, encrypted):
    """None of these goes away by trying again."""

    def refused(address):
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", address)
        assert ended.code == 78, ended.err
        return ended.err

    assert encrypted.startswith("tls://")
    assert "TLS needs certificates, and none are configured. Set distributed.comm.tls.ca-file" in refused(encrypted)
    assert "the scheduler speaks TLS; write tls:// instead of tcp://" in refused(encrypted.replace("tls", "tcp"))
    with tls(tmp_path, "theirs", "ours"):
        assert "do not accept each other's certificates (self-signed certificate)" in refused(encrypted)
    with tls(tmp_path, "ours", "theirs"):
        assert "do not accept each other's certificates (" in refused(encrypted)
    with tls(tmp_path, "nowhere", "ours"):
        assert "the certificates of Dask's configuration cannot be used" in refused(encrypted)


def test_75_the_right_certificates(bigmm, sleep_lake, tmp_path, encrypted, monkeypatch):
    """The scheduler answers; it has no workers."""
    monkeypatch.setitem(executor.__kwdefaults__, "no_worker_seconds", 0.5)
    with tls(tmp_path, "ours", "ours"):
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", encrypted)
    assert ended.code == 75
    assert "has had no workers" in ended.err


def test_78_a_scheduler_that_does_not_speak_tls(bigmm, sleep_lake, tmp_path):
    certificate(tmp_path, "ours")
    with Processes(tmp_path, 0) as processes, tls(tmp_path, "ours", "ours"):
        ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", processes.address.replace("tcp", "tls"))
    assert ended.code == 78
    assert "the scheduler does not speak TLS; write tcp:// instead of tls://" in ended.err
