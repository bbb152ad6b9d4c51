"""`cxrfast bags`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Device, Seed
from cxrfast.errors import UsageError


def bags(
    dataset: Annotated[
        str, typer.Option("--dataset", help="mnist, cifar10, or an .npz file of images and labels.")
    ] = "mnist",
    root: Annotated[Path | None, typer.Option("--root", help="torchvision's folder of the data set.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch it into --root.")] = False,
    positive_class: Annotated[
        str | None, typer.Option("--positive-class", help="Makes a bag positive; default: 9 of mnist, dog of cifar10.")
    ] = None,
    bag_size: Annotated[str, typer.Option("--bag-size", help="Mean number of images per bag; comma-separated.")] = "10",
    bag_size_std: Annotated[
        float, typer.Option("--bag-size-std", min=0, help="Standard deviation of the bag size; 0: all the same.")
    ] = 2.0,
    train_bags: Annotated[
        str, typer.Option("--train-bags", help="Training bags, half of them positive; comma-separated.")
    ] = "50,100,200",
    positives: Annotated[
        str,
        typer.Option("--positives", help="Positive images in a positive bag: natural (by chance, ≥ 1), 3, 0.1 or 10%."),
    ] = "natural",
    method: Annotated[
        str, typer.Option("--method", help="Comma-separated; a wrong name lists them all.")
    ] = "sgl,max,mean,softmax,noisy-or,bil,mmm,attention",
    network: Annotated[
        str | None, typer.Option("--network", help="lenet5 or resnet18; default: lenet5 for grey images.")
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="Pooling under sgl, bil and mmm.")] = "max",
    delta: Annotated[float, typer.Option("--delta", help="Of sgl: δ_l, with δ_h = 1 − δ_l.")] = 0.3,
    lam: Annotated[float, typer.Option("--lam", help="Of sgl and bil: λ, the weight of the instance loss.")] = 1.0,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each combination, with other bags and weights.")] = 3,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", help="One number, or one per bag size; the best by validation bags is tested. [50]"),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Instead: as many optimisation steps, whatever the training bags.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Bags at a time.")] = 8,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, help="Added to the gradient.")] = 1e-4,
    val_bags: Annotated[int, typer.Option("--val-bags", min=2, help="Bags that choose the epoch.")] = 50,
    test_bags: Annotated[int, typer.Option("--test-bags", min=2, help="Bags that are measured.")] = 1000,
    device: Device = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; default: runs/bags-<dataset>.")
    ] = None,
) -> None:
    """Compare ways to learn from bags of images with one label per bag.

    Trains every method on every kind of bag, and measures whether bags are recognised (AUC) and whether the positive
    images in them are found (IoU). Runs that stand in runs.csv already are not repeated.

    Examples: cxrfast bags --dataset mnist --root data --download --method sgl,max --bag-size 10,50

    cxrfast bags --dataset images.npz --positive-class dog
    """
    from cxrfast.bags import Settings, default_network, make_grid, markdown, read_source, run_grid
    from cxrfast.training.devices import resolve_device

    if not lr > 0:
        raise UsageError(f"lr: expected a number above 0, got {lr}")
    sizes, counts = numbers("bag-size", bag_size, 1), numbers("train-bags", train_bags, 2)
    place = resolve_device(device or "auto")
    source = read_source(dataset, root, positive_class=positive_class, download=download, seed=seed)
    base = Settings(
        bag_size_std=bag_size_std,
        positives=positives,
        network=network or default_network(source.train.images.shape[1]),
        pool=pool,
        delta=delta,
        lam=lam,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        val_bags=val_bags,
        test_bags=test_bags,
        seed=seed,
    )
    methods = list(dict.fromkeys(name.strip() for name in method.split(",")))
    grid = make_grid(
        base,
        methods,
        sizes,
        counts,
        runs,
        epochs=numbers("epochs", epochs, 1, distinct=False) if epochs is not None else (),
        steps=numbers("steps", steps, 1, distinct=False) if steps is not None else (),
    )
    folder = out or Path("runs") / f"bags-{source.name}"
    summaries = run_grid(source, grid, folder, device=place, say=typer.echo)
    for measure, title in (("iou", "IoU"), ("auc", "AUC")):
        typer.echo(f"\n{title}, mean (min–max) over runs\n\n{markdown(summaries, measure)}")
    typer.echo(f"\nwritten: {folder}")


def numbers(name: str, text: str, least: int, distinct: bool = True) -> list[int]:
    """Comma-separated integers, each once if they are to be distinct."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < least:
        raise UsageError(f"{name}: expected comma-separated numbers of at least {least}, got {text!r}")
    return list(dict.fromkeys(values)) if distinct else values
