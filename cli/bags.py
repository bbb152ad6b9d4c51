"""`cxrfast bags`."""

from pathlib import Path
from typing import Annotated

import typer

from cxrfast.cli.options import Device, Seed
from cxrfast.cli.output import echo


def bags(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="Settings of a figure: seibold4, seibold5a or seibold6. Other options take precedence."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="mnist, cifar10, or an .npz file with images and labels. [mnist]")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Folder where torchvision keeps the data set.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download the data set into --root.")] = False,
    positive_class: Annotated[
        str | None,
        typer.Option(
            "--positive-class", help="Class of the positive instances; default: 9 for mnist, dog for cifar10."
        ),
    ] = None,
    bag_size: Annotated[
        str | None, typer.Option("--bag-size", help="Mean number of images per bag; comma-separated. [10]")
    ] = None,
    bag_size_std: Annotated[
        str | None,
        typer.Option("--bag-size-std", help="Standard deviation of the bag size; one number, or one per size. [2]"),
    ] = None,
    train_bags: Annotated[
        str | None,
        typer.Option(
            "--train-bags", help="Number of training bags, half of them positive; comma-separated. [50,100,200]"
        ),
    ] = None,
    positives: Annotated[
        str | None,
        typer.Option(
            "--positives",
            help="Positive images per positive bag: natural (random, at least 1), a number (3) or a share (0.1, 10%); "
            "comma-separated. [natural]",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Methods, comma-separated; bil:max is bil with max pooling. An unknown name lists all methods. "
            "[sgl,max,mean,softmax,noisy-or,bil,mmm,attention]",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", help="lenet5 or resnet18; default: lenet5 for greyscale images, else resnet18."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Pooling of sgl, bil and mmm; default: mean for bil, max for the others."),
    ] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="δ_l of sgl; δ_h is 1 − δ_l. [0.3]")] = None,
    lam: Annotated[
        float | None, typer.Option("--lam", help="λ of sgl and bil, the weight of the instance loss. [1]")
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="Runs of each combination, with different bags and weights. [3]")
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option(
            "--epochs",
            help="Epochs; one number, or one per bag size. The best epoch on validation bags is tested. [50]",
        ),
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Optimisation steps, instead of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Bags per batch. [8]")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate of Adam. [0.001]")] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", min=0, help="L2 weight decay of Adam. [0.0001]")
    ] = None,
    val_bags: Annotated[
        int | None,
        typer.Option("--val-bags", min=2, help="Number of validation bags, on which the best epoch is chosen. [50]"),
    ] = None,
    test_bags: Annotated[int | None, typer.Option("--test-bags", min=2, help="Number of test bags. [1000]")] = None,
    device: Device = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder; default: runs/bags-<preset or dataset>.")
    ] = None,
) -> None:
    """Compare methods of multiple-instance learning on bags of images.

    Trains all methods for all combinations of the bag options. AUC measures the classification of bags, IoU the
    detection of positive images within them. Runs that are already in runs.csv are not repeated.

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
        echo(f"{chosen.title}. {chosen.sources()}")
        if differs := plan.differences(chosen.plan):
            echo(f"DIFFERENT FROM THE PRESET: {'; '.join(differs)}")
    folder = out or Path("runs") / f"bags-{preset or source.name}"
    summaries = run_grid(source, grid, folder, device=place)
    for measure, title in (("iou", "IoU"), ("auc", "AUC")):
        echo(f"\n{title}, mean (min–max) over runs\n\n{markdown(summaries, measure)}")
    echo(f"\nwritten: {folder}")
