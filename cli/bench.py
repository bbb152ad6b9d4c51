"""`cxrfast bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Device
from cxrfast.cli.output import echo
from cxrfast.errors import UsageError

DTYPES = ("float32", "float64", "float16", "bfloat16")


def bench(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASES]...", help="Operator families, operators or patterns; default: all."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the cases and the libraries compared, and exit.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check on small inputs that everything runs. The times are not meaningful.")
    ] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            "--peers", help="Libraries to compare with, comma-separated, or none; default: all that are installed."
        ),
    ] = None,
    peer_path: Annotated[
        list[Path] | None, typer.Option("--peer-path", help="Folder to import further libraries from. Repeatable.")
    ] = None,
    device: Device = None,
    dtype: Annotated[str, typer.Option("--dtype", help=f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")] = "float32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: one per core.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Output folder, for <device>.csv.")] = Path("results"),
    plot: Annotated[bool, typer.Option("--plot", help="Plot <device>.png as well.")] = False,
) -> None:
    """Benchmark the operators against other libraries.

    Times all implementations, compares their results, and relates the times to the memory bandwidth and arithmetic
    throughput of this machine. Libraries that are not installed are listed (pip install 'cxrfast[bench]'). A new
    measurement of a case replaces the old one.

    Examples: cxrfast bench blur_pool --peers kornia,timm

    cxrfast bench 'pac_crf/full/*' --peer-path pacnet
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    for folder in peer_path or []:
        if not folder.is_dir():
            raise UsageError(f"peer-path: expected a folder, got {folder}")
        sys.path.append(str(folder))
    import torch

    from cxrfast.benchmarks.peers import select_libraries
    from cxrfast.benchmarks.registry import select_cases
    from cxrfast.benchmarks.runner import BenchmarkSettings, run
    from cxrfast.benchmarks.table import listing

    chosen, libraries = select_cases(cases or []), select_libraries(peers)
    if list_:
        echo(listing(chosen))
        return
    from cxrfast.devices import resolve_device

    place = torch.device(resolve_device(device or "auto"))
    if threads is not None:
        torch.set_num_threads(threads)
    path = run(chosen, BenchmarkSettings(place, getattr(torch, dtype), libraries, quick), out)
    echo(f"\nwritten: {path}")
    if plot:
        from cxrfast.benchmarks.plot import plot_results

        echo(f"written: {plot_results(path)}")
