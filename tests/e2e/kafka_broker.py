"""A real Kafka broker on loopback, out of Maven's jars, with TLS and a password: KRaft, no ZooKeeper, no Docker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.e2e.house import free_port

START_WITHIN_S = 90.0
USER, PASSWORD = "pointsman", "a-password-of-the-tests"
_JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    f' username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
)


class Broker:
    """One node, broker and controller at once. Stopped by any signal, and started again with what it had."""

    def __init__(self, jars: Path, folder: Path, topic_partitions: int = 3) -> None:
        self._classpath = f"{jars}/*"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.ca_file = folder / "ca.pem"
        _certificates(folder)
        port, controller = free_port(), free_port()
        self.bootstrap = f"localhost:{port}"
        self._port = port
        self._config = folder / "server.properties"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@localhost:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"CLIENTS://localhost:{port}",
            "inter.broker.listener.name": "CLIENTS",
            "listener.security.protocol.map": "CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config": _JAAS,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "log.dirs": str(folder / "data"),
            "num.partitions": str(topic_partitions),
            "offsets.topic.replication.factor": "1",
            "auto.create.topics.enable": "true",
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        identity = ["format", "-t", "cG9pbnRzbWFucG9pbnRzbQ", "-c", str(self._config)]
        self._run("kafka.tools.StorageTool", *identity).wait(60)
        self.start()

    @property
    def router_settings(self) -> dict[str, str]:
        """What a router has to know of it."""
        return {
            "ROUTER_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "ROUTER_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "ROUTER_KAFKA_CA_FILE": str(self.ca_file),
            "ROUTER_KAFKA_SASL_MECHANISM": "PLAIN",
            "ROUTER_KAFKA_SASL_USERNAME": USER,
            "ROUTER_KAFKA_SASL_PASSWORD": PASSWORD,
        }

    @property
    def client_config(self) -> dict[str, str]:
        """The same for a reader of the tests."""
        return {
            "security.protocol": "sasl_ssl",
            "ssl.ca.location": str(self.ca_file),
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }

    def start(self) -> None:
        """Start, and wait until it lets clients in."""
        self._process = self._run("kafka.Kafka", str(self._config))
        until = time.monotonic() + START_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                gone = self._process.poll() is not None
                assert not gone, f"Kafka did not start:\n{self.log.read_text()[-3000:]}"
                assert time.monotonic() < until, "Kafka does not start"
                time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it: by default as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(30)

    @property
    def log(self) -> Path:
        """What it has said."""
        return self._folder / "broker.log"

    def _run(self, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        java = shutil.which("java")
        assert java is not None, "no Java on this machine"
        command = [java, "-Xmx512m", "-cp", self._classpath, main, *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, env=dict(os.environ))


def _certificates(folder: Path) -> None:
    """A certificate authority, and the broker's certificate for localhost with its key in one file."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca of the tests")
    openssl("req", *new[:3], "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=localhost")
    (folder / "san").write_text("subjectAltName=DNS:localhost")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
    openssl("x509", "-req", "-in", "broker.csr", *signed, "-out", "broker.crt")
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "broker.key", "-out", "broker.p8")
    (folder / "broker.pem").write_text((folder / "broker.p8").read_text() + (folder / "broker.crt").read_text())
