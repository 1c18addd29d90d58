"""The digest by which any reader can tell that an answer belongs to its text."""

from hashlib import blake2b

DIGEST_BYTES = 8


def input_digest(text: str, text_pair: str | None = None) -> bytes:
    """BLAKE2b, 8 bytes, over the UTF-8 of `text`, and of `text_pair` behind a byte 0xff.

    0xff never occurs in UTF-8, so no two inputs run together.
    """
    data = text.encode()
    if text_pair is not None:
        data = b"%b\xff%b" % (data, text_pair.encode())
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
