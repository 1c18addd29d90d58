"""`petstream models`: the backbones of this machine."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from petstream.backbone_download import fetch_with_progress
from petstream.output import console, fail, print_json
from petstream.settings import load_settings
from workers.backbone_store import BackboneStore
from workers.errors import BackboneError, BackboneUnknownError
from workers.hub import download_from_hub
from workers.levels import LEVEL_BACKBONES

app = typer.Typer(help="Fetch, add and list backbones.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of the catalogue; none means the two that the levels run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download backbones of the catalogue, check them and keep them on this machine.

    Example: petstream models fetch minilm-l3
    """
    store = BackboneStore(load_settings().models_dir)
    folders: dict[str, str] = {}
    try:
        for name in names or dict.fromkeys(LEVEL_BACKBONES.values()):
            folders[name] = str(fetch_with_progress(store, name))
            if not as_json:
                console.print(f"{name}: {folders[name]}", soft_wrap=True, highlight=False)
    except BackboneUnknownError as error:
        fail(str(error), code=2)
    except BackboneError as error:
        fail(str(error))
    if as_json:
        print_json({"models_dir": str(store.models_dir), "folders": folders})


@app.command("list")
def list_backbones(as_json: Json = False) -> None:
    """Show the backbones of the catalogue and those that were added.

    Example: petstream models list --json
    """
    store = BackboneStore(load_settings().models_dir)
    backbones = store.inventory()
    if as_json:
        print_json(
            {
                "models_dir": str(store.models_dir),
                "backbones": [{**asdict(b), "folder": str(b.folder)} for b in backbones],
            }
        )
        return
    table = Table("name", "state", "family", "layers", "hidden", "MB", "folder")
    for b in backbones:
        sizes = (
            (b.config.family, str(b.config.shape.num_layers), str(b.config.shape.hidden_size))
            if b.config
            else ("", "", "")
        )
        table.add_row(b.name, b.state, *sizes, f"{b.num_bytes / 1e6:.1f}", str(b.folder))
    console.print(table)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name that tasks will use.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder with config.json, model.safetensors and tokenizer.json."),
    ] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", help="Download ORGANISATION/MODEL instead of FOLDER.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, tag or branch of --hub.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add an encoder of your own from a local Hugging Face folder, or from a hub by name.

    Example: petstream models add my-bert ./my-bert-folder
    """
    if (folder is None) == (hub is None):
        fail("give either FOLDER or --hub ORGANISATION/MODEL", code=2)
    store = BackboneStore(load_settings().models_dir)
    try:
        if folder is not None:
            added = store.add(name, folder)
        else:
            assert hub is not None
            with tempfile.TemporaryDirectory(prefix="petstream-hub-") as scratch:
                source = download_from_hub(hub, revision, Path(scratch))
                added = store.add(name, source)
    except BackboneError as error:
        fail(str(error))
    if as_json:
        print_json({"name": name, "folder": str(added)})
    else:
        console.print(f"{name}: {added}", soft_wrap=True, highlight=False)
