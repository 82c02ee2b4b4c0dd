"""A Kafka cluster out of librdkafka itself: real sockets, the real protocol, no broker to install; and a reader.

`test.mock.num.brokers` gives a producer a cluster of its own; here the same cluster is made beside any producer, so
that it outlives them, and brokers can be taken away. It answers like Kafka 2-3, keeps everything in memory, and
checks the sequence numbers of idempotent producers.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka
from confluent_kafka import Consumer, TopicPartition

PARTITIONS = 3
PRODUCE = 0
"""The protocol's number of the request."""
READ_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a topic."""

    partition: int
    key: str
    value: bytes
    headers: Mapping[str, object]


class MockCluster:
    """Three brokers on loopback, with one topic."""

    def __init__(self, topic: str, brokers: int = 3) -> None:
        self._lib = _library()
        self._brokers = brokers
        error = ctypes.create_string_buffer(256)
        handle = self._lib.rd_kafka_new(0, self._lib.rd_kafka_conf_new(), error, len(error))
        assert handle, error.value
        self._handle = ctypes.c_void_p(handle)
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, brokers))
        assert not self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), PARTITIONS, brokers)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def down(self) -> None:
        """No broker answers: connections are refused, those that were open are cut."""
        for each in range(1, self._brokers + 1):
            self._lib.rd_kafka_mock_broker_set_down(self._cluster, each)

    def up(self) -> None:
        """All are back, with what they had."""
        for each in range(1, self._brokers + 1):
            self._lib.rd_kafka_mock_broker_set_up(self._cluster, each)

    def refuse(self, *errors: int) -> None:
        """The next requests to write are answered with these errors, one each."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, PRODUCE, len(errors), codes)

    def clear(self) -> None:
        """Refuse nothing any more."""
        self._lib.rd_kafka_mock_clear_request_errors(self._cluster, PRODUCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)


def _library() -> ctypes.CDLL:
    """The very library that confluent-kafka has loaded."""
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    lib = ctypes.CDLL(str(next(folder.glob("librdkafka*.so*"))))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures: dict[str, tuple[object, Sequence[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_new": (pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, ctypes.c_int]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        "rd_kafka_mock_broker_set_down": (ctypes.c_int, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (ctypes.c_int, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def read_all(bootstrap: str, topic: str, *, within_s: float = READ_WITHIN_S, **config: str) -> list[Record]:
    """Everything in the topic, each partition in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 2,
            **config,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=within_s).topics[topic].partitions
        consumer.assign([TopicPartition(topic, each, 0) for each in partitions])
        left, found = set(partitions), list[Record]()
        until = time.monotonic() + within_s
        while left:
            assert time.monotonic() < until, f"not read to the end: partitions {left}"
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.name() == "_PARTITION_EOF":
                    left.discard(message.partition() or 0)
                continue
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            found.append(Record(message.partition() or 0, key.decode(), value, dict(message.headers() or ())))
        return found
    finally:
        consumer.close()
