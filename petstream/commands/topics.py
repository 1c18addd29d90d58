"""`petstream topics`: make and verify the topics of a namespace."""

from typing import Annotated

import typer
from rich.table import Table

from messages.topics import TopicNames
from petstream.kafka_connection import broker_settings, kafka_settings
from petstream.output import console, fail, print_json
from transport.topics import create_topics, find_differences, topic_specs

app = typer.Typer(no_args_is_help=True, help="Create and verify the topics of a namespace.")

BootstrapServers = Annotated[
    str | None, typer.Option(help="Kafka brokers; default KAFKA_BOOTSTRAP_SERVERS.")
]
Namespace = Annotated[str | None, typer.Option(help="Prefix of all topic names.")]
Levels = Annotated[int, typer.Option(min=1, max=8, help="Number of levels; one batch topic each.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def create(
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    levels: Levels = 2,
    partitions: Annotated[
        int, typer.Option(min=1, help="Of queries, batches, escalations and results.")
    ] = 12,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each partition; default: as many as the brokers make."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the topics that are missing; leave the others as they are.

    Example: petstream topics create --namespace acme --partitions 24 --replication 3
    """
    settings = broker_settings(bootstrap_servers, namespace)
    created = create_topics(
        kafka_settings(settings),
        TopicNames(settings.namespace),
        levels=range(levels),
        partitions=partitions,
        replication=replication,
    )
    if as_json:
        print_json(
            {
                "namespace": settings.namespace,
                "topics": [
                    {"topic": t.topic, "partitions": t.num_partitions, "created": t.is_new}
                    for t in created
                ],
            }
        )
        return
    table = Table("topic", "partitions", "")
    for topic in created:
        table.add_row(
            topic.topic, str(topic.num_partitions), "created" if topic.is_new else "exists"
        )
    console.print(table)


@app.command()
def verify(
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
    levels: Levels = 2,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Also ask for this number of partitions.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the topics with what the services need; exit 1 on any difference.

    Example: petstream topics verify --namespace acme
    """
    settings = broker_settings(bootstrap_servers, namespace)
    specs = topic_specs(
        TopicNames(settings.namespace), levels=range(levels), partitions=partitions or 1
    )
    differences = find_differences(
        kafka_settings(settings), specs, check_partitions=partitions is not None
    )
    if as_json:
        print_json(
            {
                "namespace": settings.namespace,
                "topics": [spec.name for spec in specs],
                "differences": [
                    {"topic": d.topic, "key": d.key, "wanted": d.wanted, "found": d.found}
                    for d in differences
                ],
            }
        )
    elif differences:
        table = Table("topic", "setting", "wanted", "found")
        for difference in differences:
            table.add_row(difference.topic, difference.key, difference.wanted, difference.found)
        console.print(table)
    else:
        console.print(f"{len(specs)} topics of {settings.namespace} are as they should be")
    if differences:
        fail(
            f"{len(differences)} differences; petstream topics create makes missing topics, "
            "kafka-configs --alter corrects settings"
        )
