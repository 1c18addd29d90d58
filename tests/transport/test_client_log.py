"""librdkafka's log without its repetitions."""

import logging

from transport.client_log import RepeatFilter


def _line(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, __file__, 1, text, args, None)


def test_repetitions_are_dropped() -> None:
    """The same line twenty times a second passes once; numbers do not make it another line."""
    news = RepeatFilter()

    passed = [news.filter(_line("FAIL broker %d: refused after %dms", 1, ms)) for ms in range(20)]

    assert passed == [True] + [False] * 19


def test_different_lines_pass() -> None:
    """What has not been said is said."""
    news = RepeatFilter()

    assert news.filter(_line("FAIL: refused"))
    assert news.filter(_line("FAIL: timed out"))


def test_memory_is_bounded() -> None:
    """Endless different lines do not fill the memory."""
    news = RepeatFilter()

    for number in range(5000):
        assert news.filter(_line("x" * number))

    assert len(news._passed_s) <= 1000
