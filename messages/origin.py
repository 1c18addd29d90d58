"""Where a query came from: the identity that every later record carries.

The broker assigns it, so it is unique and unchangeable, and it is the only key by which answers
are de-duplicated. Within one partition origins are dense offsets.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Topic, incarnation of the topic, partition and offset of the record that held a query.

    `topic_id` is the broker's UUID of the topic, in its 22-character base64 form; it changes when
    a topic is deleted and made again. Empty where the broker does not tell it.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"
