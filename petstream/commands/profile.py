"""`petstream profile`: measure this machine's cost models, and show them."""  # noqa: A005 - named as the command is

import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from petstream.figures_view import print_figures
from petstream.output import console, error_console, fail, print_json
from petstream.settings import Settings, load_settings
from scheduler.profile_file import Profile, ProfileError, read_profiles, write_profile
from workers.device_choice import device_name, open_device, precision_on_device
from workers.errors import DeviceUnavailableError
from workers.levels import LEVEL_BACKBONES
from workers.machine_figures import FiguresFile, read_figures
from workers.precision import PrecisionChoice, precisions_of
from workers.processor import this_processor

if TYPE_CHECKING:
    import torch

app = typer.Typer(help="Measure the cost models of this machine, or show them.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback(invoke_without_command=True)
def profile(
    context: typer.Context,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Default: the backbones of all levels.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="As many as the worker will have; default: all cores.")
    ] = None,
    dtype: Annotated[
        PrecisionChoice,
        typer.Option(help="What is computed in; auto: what is faster on this machine."),
    ] = "auto",
    device: Annotated[
        str | None,
        typer.Option(
            help="What to compute on: cpu, cuda or cuda:N; default: PETSTREAM_DEVICE, else cpu."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Each figure is a median of so many.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure alpha and beta with the worker's engine; schedulers use them from their next start.

    What a worker on cores measures at its first start (which library multiplies, and from how many
    rows on one way to an operator is faster than another) is measured anew, too.

    Example: petstream profile --threads 2
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings().with_flags(device=device)
    opened = _opened(settings.device, dtype)
    figures_file = settings.figures_file
    if opened is None:
        figures_file.unlink(missing_ok=True)
    profiles = []
    for name in backbone or list(LEVEL_BACKBONES.values()):
        measured = _measure(settings, name, threads, repeats, dtype, opened)
        path = write_profile(measured, _folder(settings))
        profiles.append(measured)
        error_console.print(f"{name}: written to {path}")
    _print(profiles, read_figures(figures_file), as_json=as_json)


@app.command()
def show(as_json: Json = False) -> None:
    """Show what was measured on this machine.

    Example: petstream profile show --json
    """
    settings = load_settings()
    try:
        profiles = read_profiles(_folder(settings))
    except ProfileError as error:
        fail(str(error))
    figures = read_figures(settings.figures_file)
    if not profiles and figures is None and not as_json:
        fail("nothing was measured yet; run `petstream profile`")
    _print(profiles, figures, as_json=as_json)


def _opened(device: str, dtype: PrecisionChoice) -> "torch.device | None":
    try:
        return open_device(device, dtype)
    except DeviceUnavailableError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(_without_engine(error))


def _without_engine(error: ModuleNotFoundError) -> str:
    return f"measuring needs the engine ({error.name} is missing): pip install petstream[worker]"


def _measure(
    settings: Settings,
    name: str,
    threads: int | None,
    repeats: int,
    dtype: PrecisionChoice,
    opened: "torch.device | None",
) -> Profile:
    try:
        from workers.backbone import Backbone
        from workers.backbone_store import find
        from workers.engine import Engine
        from workers.errors import BackboneError
        from workers.grouped.on_device import OnDevice
        from workers.profiler import NUM_ROWS, SEQ_LENS, measure_costs
    except ModuleNotFoundError as error:
        fail(_without_engine(error))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True) as progress:
        bar = progress.add_task(f"measuring {name}", total=None)
        try:
            loaded = Backbone.load(find(name, settings.models_dir))
        except BackboneError as error:
            fail(str(error))
        engine = Engine(
            loaded,
            threads=threads,
            precisions=(precisions_of(dtype) if opened is None else (precision_on_device(dtype),)),
            figures_file=settings.figures_file,
            on_device=None if opened is None else OnDevice(opened),
        )
        precision = engine.precision_of(passes_bfloat16=True)
        try:
            measured = measure_costs(
                engine,
                precision=precision,
                num_rows=NUM_ROWS,
                seq_lens=SEQ_LENS,
                repeats=repeats,
                on_point=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        finally:
            engine.close()
    return Profile(
        backbone=name,
        device=this_processor().name if opened is None else device_name(opened),
        dtype=precision,
        threads=engine.num_threads,
        versions={"petstream": version("petstream"), "torch": version("torch")},
        commit=_commit(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        repeats=repeats,
        num_rows=NUM_ROWS,
        seq_lens=SEQ_LENS,
        alpha_ms=_rounded(measured.alpha_ms),
        beta_ms={kind: _rounded(table) for kind, table in measured.beta_ms.items()},
    )


def _rounded(table: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(value, 4) for value in row) for row in table)


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "profiles"


def _print(profiles: list[Profile], figures: FiguresFile | None, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "profiles": [measured.model_dump(mode="json") for measured in profiles],
                "figures": None if figures is None else figures.model_dump(mode="json"),
            }
        )
        return
    if figures is not None:
        print_figures(figures)
    for measured in profiles:
        console.print(
            f"[bold]{measured.backbone}[/bold] on {measured.device}, {measured.dtype}, "
            f"{measured.threads} threads, commit {measured.commit}, {measured.measured_at}",
            soft_wrap=True,
            highlight=False,
        )
        table = Table(caption="milliseconds of a batch, by rows and tokens per row")
        table.add_column("table", no_wrap=True)
        for heading in ("rows", *(f"{length} tok" for length in measured.seq_lens)):
            table.add_column(heading, justify="right", no_wrap=True)
        tables = {"alpha": measured.alpha_ms}
        tables |= {f"beta {kind}": costs for kind, costs in measured.beta_ms.items()}
        for name, costs in tables.items():
            for number, (rows, row) in enumerate(zip(measured.num_rows, costs, strict=True)):
                table.add_row(
                    "" if number else name, str(rows), *(f"{cost_ms:.2f}" for cost_ms in row)
                )
            table.add_section()
        console.print(table)


def _commit() -> str:
    """Return the commit of the checkout this runs from, or the version of an installed package."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return f"release {version('petstream')}"
    return found.stdout.strip()
