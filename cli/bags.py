"""`cxrfast bags`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Device, Seed


def bags(
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="seibold4, seibold5a or seibold6: a figure's experiment; options change it."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="mnist, cifar10, or an .npz file of images and labels. [mnist]")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="torchvision's folder of the data set.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch it into --root.")] = False,
    positive_class: Annotated[
        str | None, typer.Option("--positive-class", help="Makes a bag positive; default: 9 of mnist, dog of cifar10.")
    ] = None,
    bag_size: Annotated[
        str | None, typer.Option("--bag-size", help="Mean number of images per bag; comma-separated. [10]")
    ] = None,
    bag_size_std: Annotated[
        str | None,
        typer.Option("--bag-size-std", help="Standard deviation of the bag size, one number or one per size. [2]"),
    ] = None,
    train_bags: Annotated[
        str | None,
        typer.Option("--train-bags", help="Training bags, half of them positive; comma-separated. [50,100,200]"),
    ] = None,
    positives: Annotated[
        str | None,
        typer.Option(
            "--positives",
            help="Positive images in a positive bag, comma-separated: natural (by chance, ≥ 1), 3, 0.1 or 10%. "
            "[natural]",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Comma-separated, each with a pooling if not its own: bil:max. A wrong name lists them all. "
            "[sgl,max,mean,softmax,noisy-or,bil,mmm,attention]",
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="lenet5 or resnet18; default: lenet5 for grey images.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Pooling under sgl, bil and mmm; default: each one's own, mean for bil, else max."),
    ] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="Of sgl: δ_l, with δ_h = 1 − δ_l. [0.3]")] = None,
    lam: Annotated[
        float | None, typer.Option("--lam", help="Of sgl and bil: λ, the weight of the instance loss. [1]")
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="Of each combination, with other bags and weights. [3]")
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", help="One number, or one per bag size; the best by validation bags is tested. [50]"),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Instead: as many optimisation steps, whatever the training bags.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Bags at a time. [8]")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate of Adam. [0.001]")] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", min=0, help="Added to the gradient. [0.0001]")
    ] = None,
    val_bags: Annotated[int | None, typer.Option("--val-bags", min=2, help="Bags that choose the epoch. [50]")] = None,
    test_bags: Annotated[int | None, typer.Option("--test-bags", min=2, help="Bags that are measured. [1000]")] = None,
    device: Device = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; default: runs/bags-<preset or dataset>.")
    ] = None,
) -> None:
    """Compare ways to learn from bags of images with one label per bag.

    Trains every method on every kind of bag, and measures whether bags are recognised (AUC) and whether the positive
    images in them are found (IoU). Runs that stand in runs.csv already are not repeated.

    Examples: cxrfast bags --dataset mnist --root data --download --method sgl,max --bag-size 10,50

    cxrfast bags --dataset images.npz --positive-class dog --positives 1,5,10 --bag-size 20 --bag-size-std 0

    cxrfast bags --preset seibold4 --root data --runs 1 --epochs 20
    """
    from cxrfast.devices import resolve_device
    from cxrfast.experiments.bags import BagPlan, find_preset, markdown, parse_fields, read_source, run_grid

    begin = find_preset(preset).plan if preset is not None else BagPlan()
    given = {
        "dataset": dataset,
        "positive_class": positive_class,
        "method": method,
        "bag_size": bag_size,
        "bag_size_std": bag_size_std,
        "train_bags": train_bags,
        "positives": positives,
        "network": network,
        "pool": pool,
        "delta": delta,
        "lam": lam,
        "runs": runs,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "val_bags": val_bags,
        "test_bags": test_bags,
    }
    plan = begin.changed(parse_fields(given))
    place = resolve_device(device or "auto")
    source = read_source(plan.dataset, root, positive_class=plan.positive_class, download=download, seed=seed)
    grid = plan.grid(source, seed)
    if preset is not None:
        chosen = find_preset(preset)
        typer.echo(f"{chosen.title}. {chosen.sources()}")
        if differs := plan.differences(chosen.plan):
            typer.echo(f"NOT THE PRESET'S: {'; '.join(differs)}")
    folder = out or Path("runs") / f"bags-{preset or source.name}"
    summaries = run_grid(source, grid, folder, device=place)
    for measure, title in (("iou", "IoU"), ("auc", "AUC")):
        typer.echo(f"\n{title}, mean (min–max) over runs\n\n{markdown(summaries, measure)}")
    typer.echo(f"\nwritten: {folder}")
