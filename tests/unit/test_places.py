"""So many payments at once in a process, however their path is spelled; and a place comes back whatever happens."""

from __future__ import annotations

from typing import Any

import pytest

from router.api.places import Places


@pytest.mark.parametrize("path", ["/v1/payments", "//v1/payments", "///v1/payments/pay_1/capture"])
def test_beyond_its_places_a_process_turns_payments_away_at_once(path: str) -> None:
    """Flask reads several slashes at the beginning as one, so they are no way around."""
    refused: list[int] = []
    answers: list[str] = []

    def ask(asked: str, method: str = "POST") -> None:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": asked}
        places(environ, lambda status, _headers: answers.append(status))

    def inside(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if len(answers) + len(refused) == 0:
            ask(path)
            ask("/v1/decisions")
        start_response("200 OK", [])
        return []

    places = Places(inside, 1, lambda: refused.append(1))
    ask("/v1/payments")
    assert [each[:3] for each in answers] == ["503", "200", "200"]
    assert refused == [1]


def test_a_place_comes_back_from_a_view_that_fails() -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise OSError

    places = Places(fails, 1, lambda: pytest.fail("was refused"))
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011 - whatever it raises passes
            places({"REQUEST_METHOD": "POST", "PATH_INFO": "/v1/payments"}, lambda *_args: None)
