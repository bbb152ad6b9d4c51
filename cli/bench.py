"""`cxrfast bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Device
from cxrfast.errors import UsageError

DTYPES = ("float32", "float64", "float16", "bfloat16")


def bench(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASES]...", help="Families, operators or patterns; default: all.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the cases and their peers, and stop.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small problems: see that it runs. Times mean nothing.")
    ] = False,
    peers: Annotated[
        str | None, typer.Option("--peers", help="Comma-separated libraries, or none; default: all there are.")
    ] = None,
    peer_path: Annotated[
        list[Path] | None, typer.Option("--peer-path", help="Import peers that cannot be installed from this folder.")
    ] = None,
    device: Device = None,
    dtype: Annotated[str, typer.Option("--dtype", help=f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")] = "float32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: one per core.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for <device>.csv.")] = Path("results"),
    plot: Annotated[bool, typer.Option("--plot", help="Draw <device>.png from it, too.")] = False,
) -> None:
    """Measure the operators beside other libraries.

    Times all in turns, checks that they compute the same, and compares with what this machine can copy and multiply.
    Libraries that are missing are named: pip install 'cxrfast[bench]'. Cases measured again replace earlier results.

    Examples: cxrfast bench blur_pool --peers kornia,timm

    cxrfast bench 'pac_crf/full/*' --peer-path pacnet
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    for folder in peer_path or []:
        if not folder.is_dir():
            raise UsageError(f"peer-path: no folder {folder}")
        sys.path.append(str(folder))
    import torch

    from cxrfast.benchmarks.peers import select_libraries
    from cxrfast.benchmarks.registry import select_cases
    from cxrfast.benchmarks.runner import BenchmarkSettings, run
    from cxrfast.benchmarks.table import listing

    chosen, libraries = select_cases(cases or []), select_libraries(peers)
    if list_:
        typer.echo(listing(chosen))
        return
    from cxrfast.devices import resolve_device

    place = torch.device(resolve_device(device or "auto"))
    if threads is not None:
        torch.set_num_threads(threads)
    path = run(chosen, BenchmarkSettings(place, getattr(torch, dtype), libraries, quick), out)
    typer.echo(f"\nwritten: {path}")
    if plot:
        from cxrfast.benchmarks.plot import plot_results

        typer.echo(f"written: {plot_results(path)}")
