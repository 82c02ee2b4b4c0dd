"""Sends events to Kafka: the only file that knows confluent-kafka, which is loaded when a broker is configured.

The producer is idempotent: the broker writes each message of one producer once, in the order they were sent,
whatever is sent again on the wire. https://github.com/confluentinc/librdkafka/blob/v2.16.0/CONFIGURATION.md
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

LINGER_MS = 5
"""A batch is handed over at once; so long is it gathered into one request."""
LONGEST_RECONNECT_MS = 5_000
"""A broker that is back is found within so long."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message. Those with one key keep their order."""

    key: str
    value: bytes


def producer_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's settings for a router's; `kafka_bootstrap_servers` must be set."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "pointsman",
        "enable.idempotence": True,
        "acks": "all",
        # A message that failed must not be followed by the next one of its payment: the producer stops instead.
        "enable.gapless.guarantee": True,
        # Never given up: a broker that is away is waited for, and what is not delivered stays in the ledger.
        "message.timeout.ms": 0,
        "linger.ms": LINGER_MS,
        # What goes wrong is heard through `error_cb`; its own log would say it with every try.
        "log_level": 2,
        "reconnect.backoff.max.ms": LONGEST_RECONNECT_MS,
        "compression.type": "lz4",
        # The same key goes to the same partition as by Java's clients.
        "partitioner": "murmur2_random",
        "security.protocol": settings.kafka_security_protocol,
        "ssl.ca.location": _path(settings.kafka_ca_file),
        "ssl.certificate.location": _path(settings.kafka_certificate_file),
        "ssl.key.location": _path(settings.kafka_key_file),
        "ssl.key.password": _secret(settings.kafka_key_password),
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": _secret(settings.kafka_sasl_password),
    }
    return {name: value for name, value in config.items() if value is not None}


def _path(value: Any) -> str | None:
    return None if value is None else str(value)


def _secret(value: Any) -> str | None:
    return None if value is None else value.get_secret_value()


class KafkaProducer:
    """One batch at a time: `send` it, `wait` until it is delivered or has failed, or `discard` it.

    Not thread-safe: it belongs to one relay.
    """

    def __init__(
        self, config: Mapping[str, Any], topic: str, *, content_type: str, monotonic: Callable[[], float]
    ) -> None:
        self._config = dict(config)
        self._topic = topic
        self._content_type = content_type.encode()
        self._monotonic = monotonic
        self._producer: Producer | None = None
        self._reported: list[bool] = []
        self._failure: str | None = None
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """The last that was heard of the connection, where nothing was delivered since; a word of librdkafka's."""
        return self._trouble

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Begin to deliver this batch; the one before has ended."""
        self._reported, self._failure = [False] * len(messages), None
        try:
            if self._producer is None:
                self._producer = self._open()
            for index, message in enumerate(messages):
                self._producer.produce(
                    self._topic,
                    message.value,
                    message.key,
                    headers={"content-type": self._content_type},
                    on_delivery=self._reporter(self._reported, index),
                )
        except Exception as error:  # noqa: BLE001 - BufferError and KafkaException: what is left is not delivered
            self._failure = _cause(error)

    def wait(self, within_s: float) -> tuple[int, str | None]:
        """Wait for at most so long. Answers how many of the batch's first messages are delivered, and what failed.

        After a failure the rest of the batch is not delivered: `discard` it.
        """
        until = self._monotonic() + within_s
        fatal: str | None = None
        while self._producer is not None and self._failure in _MAY_BE_SAID_BETTER and not all(self._reported):
            left = until - self._monotonic()
            if left <= 0:
                break
            try:
                self._producer.poll(left)
            except Exception as error:  # noqa: BLE001 - a fatal error, as after a message that could not be written
                if fatal is not None:
                    break
                fatal = _cause(error)  # the messages' own reports, which follow, say more
        delivered = self._reported.index(False) if False in self._reported else len(self._reported)
        return delivered, self._failure or fatal

    def discard(self) -> None:
        """Forget what is not delivered, and the connection with it: the next batch is another producer's."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)
            with contextlib.suppress(Exception):  # it says once more what it died of
                producer.poll(0)
        self._reported, self._failure = [], None

    def _open(self) -> Producer:
        from confluent_kafka import Producer

        return Producer(self._config | {"error_cb": self._heard})

    def _heard(self, error: KafkaError) -> None:
        self._trouble = error.name()

    def _reporter(self, reported: list[bool], index: int) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                reported[index], self._trouble = True, None
            # The messages of other partitions are thrown away with the one that failed, and may be told of first: in
            # the same poll, or in one before.
            elif self._failure in _MAY_BE_SAID_BETTER:
                self._failure = error.name()

        return report


_MAY_BE_SAID_BETTER = (None, "_PURGE_QUEUE")
"""No failure, or one that was only thrown away with another: what did fail is told of a moment later."""


def _cause(error: Exception) -> str:
    """A word for what failed: the message may name hosts, and is not stable."""
    first = error.args[0] if error.args else None
    name = getattr(first, "name", None)
    return str(name()) if callable(name) else type(error).__name__
