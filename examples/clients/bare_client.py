"""Asks one question and prints its answer, with nothing but confluent-kafka.

    python examples/clients/bare_client.py localhost:9092 banking77 "My card was stolen"

With `--cloudevent` the question is a CloudEvent, and so is the answer.
"""

import sys
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

broker, task, text = sys.argv[1:4]
key = uuid.uuid4().hex
headers = {"task": task}
if "--cloudevent" in sys.argv:
    headers = {"ce_specversion": "1.0", "ce_id": key, "ce_source": "urn:bare-client"}
    headers |= {"ce_type": "com.example.question", "ce_subject": task, "content-type": "text/plain"}

reader = Consumer({"bootstrap.servers": broker, "group.id": "bare-client"})
topic = reader.list_topics("petstream.results").topics["petstream.results"]
ends = [TopicPartition("petstream.results", partition) for partition in topic.partitions]
for end in ends:  # taken before asking, so that the answer cannot be missed
    end.offset = reader.get_watermark_offsets(end)[1]
reader.assign(ends)

producer = Producer({"bootstrap.servers": broker})
producer.produce("petstream.queries", value=text, key=key, headers=headers)
producer.flush()

while (answer := reader.poll()) is None or answer.error() or answer.key() != key.encode():
    pass
sys.stdout.write(answer.value().decode() + "\n")
reader.close()
