"""What is said of a batch that failed, in whatever order librdkafka tells of its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from router.kafka_producer import KafkaProducer, Outgoing

THROWN_AWAY, REFUSED = KafkaError._PURGE_QUEUE, KafkaError.TOPIC_AUTHORIZATION_FAILED


class Polls:
    """In the place of librdkafka's producer: tells of the batch's messages by their numbers, poll by poll."""

    def __init__(self, *polls: dict[int, int]) -> None:
        self._polls = list(polls)
        self._told: list[Callable[[KafkaError | None, Any], None]] = []

    def produce(self, *_message: Any, on_delivery: Callable[[KafkaError | None, Any], None], **_more: Any) -> None:
        self._told.append(on_delivery)

    def poll(self, _seconds: float) -> None:
        for number, code in self._polls.pop(0).items():
            self._told[number](KafkaError(code), None)


@pytest.mark.parametrize(
    "polls",
    [
        [{1: THROWN_AWAY, 0: REFUSED}],
        [{0: REFUSED, 1: THROWN_AWAY}],
        [{1: THROWN_AWAY}, {0: REFUSED}],
    ],
    ids=["in one poll", "the one that failed first", "a poll later"],
)
def test_what_failed_is_said_and_not_what_was_thrown_away_with_it(
    polls: list[dict[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker thread tells of the one, the main thread of the others: some come a moment before."""
    monkeypatch.setattr(KafkaProducer, "_open", lambda _self: Polls(*polls))
    producer = KafkaProducer({}, "topic", content_type="text/plain", monotonic=lambda: 0.0)
    producer.send([Outgoing("a", b"1"), Outgoing("b", b"2")])
    assert producer.wait(1.0) == (0, "TOPIC_AUTHORIZATION_FAILED")


def test_what_was_only_thrown_away_is_said_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 0.5, 1.0])
    monkeypatch.setattr(KafkaProducer, "_open", lambda _self: Polls({0: THROWN_AWAY}, {}))
    producer = KafkaProducer({}, "topic", content_type="text/plain", monotonic=lambda: next(times))
    producer.send([Outgoing("a", b"1")])
    assert producer.wait(1.0) == (0, "_PURGE_QUEUE")
