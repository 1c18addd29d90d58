"""Hard limits of decoding. Whatever exceeds one is refused before it costs anything."""

MAX_QUERY_BYTES = 262_144
MAX_ESCALATION_BYTES = 1_048_576
MAX_BATCH_BYTES = 8_388_608
MAX_ANSWER_BYTES = 1_048_576
MAX_TASK_EVENT_BYTES = 1_048_576

MAX_KEY_BYTES = 1_024
MAX_HEADERS = 32
MAX_HEADERS_BYTES = 32_768
"""Names and values of one record's headers together."""

MAX_DEPTH = 8
"""Deepest nesting of maps and arrays; no message of ours needs more than four."""
MAX_MAP_ITEMS = 64
MAX_QUERY_ARRAY_ITEMS = 64
MAX_ARRAY_ITEMS = 65_536
"""Rows of a batch, labels of an answer, revisions of a task."""
MAX_DIMENSIONS = 16_384
"""Of an embedding: some 360 KB as JSON, so that no answer of one is too large for its topic."""

MAX_TEXT_CHARS = 32_768
"""Of `text` and of `text_pair`, each. Models read 512 tokens, at most some 4,000 characters."""
MAX_TOKENS = 8_192
"""Tokens of one row."""
MAX_TTL_MS = 604_800_000
"""Seven days: the retention of the query topic."""
MAX_LEVEL = 7
MAX_ATTEMPT = 1_000_000
MAX_EPOCH_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
