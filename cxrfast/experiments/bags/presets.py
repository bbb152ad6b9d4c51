"""The bag experiments of Seibold et al. 2020: the settings of each figure, and the source of each value."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrfast.errors import UsageError
from cxrfast.experiments.bags.experiment import BagSettings
from cxrfast.experiments.bags.grid import make_grid
from cxrfast.experiments.bags.images import BagSource
from cxrfast.experiments.bags.networks import default_network


@dataclass(frozen=True)
class BagPlan:
    """The axes of a grid and the settings that all its runs share. Defaults are those of `cxrfast bags`."""

    dataset: str = "mnist"
    positive_class: str | None = None  # None: the data set's default
    method: tuple[str, ...] = ("sgl", "max", "mean", "softmax", "noisy-or", "bil", "mmm", "attention")
    bag_size: tuple[int, ...] = (10,)
    bag_size_std: tuple[float, ...] = (2.0,)  # one, or one per bag size
    train_bags: tuple[int, ...] = (50, 100, 200)
    positives: tuple[str, ...] = ("natural",)
    network: str | None = None  # None: depends on the images
    pool: str | None = None  # None: each method's default
    delta: float = 0.3
    lam: float = 1.0
    runs: int = 3
    epochs: tuple[int, ...] = (50,)  # one, or one per bag size
    steps: tuple[int, ...] = ()  # instead of epochs
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-4
    val_bags: int = 50
    test_bags: int = 1000

    def changed(self, given: Mapping[str, Any]) -> "BagPlan":
        """A plan with the given values; None keeps a value. Steps replace epochs, and vice versa."""
        given = {name: value for name, value in given.items() if value is not None}
        if "steps" in given and "epochs" in given:
            raise UsageError("steps: expected either --epochs or --steps, got both")
        if "steps" in given:
            given["epochs"] = ()
        elif "epochs" in given:
            given["steps"] = ()
        return dataclasses.replace(self, **given)

    def differences(self, other: "BagPlan") -> tuple[str, ...]:
        """The fields that differ from `other`, each as "name value instead of value"."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)]
        return tuple(
            f"{name.replace('_', ' ')} {_text(own)} instead of {_text(its)}" for name, own, its in pairs if own != its
        )

    def grid(self, source: BagSource, seed: int) -> list[BagSettings]:
        """The settings of all runs on these images."""
        base = BagSettings(
            network=self.network or default_network(source.train.images.shape[1]),
            pool=self.pool,
            delta=self.delta,
            lam=self.lam,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            val_bags=self.val_bags,
            test_bags=self.test_bags,
            seed=seed,
        )
        return make_grid(
            base,
            self.method,
            self.bag_size,
            self.train_bags,
            self.runs,
            positives=self.positives,
            bag_size_std=self.bag_size_std,
            epochs=self.epochs,
            steps=self.steps,
        )


def _text(value: Any) -> str:
    if value in (None, ()):
        return "by default"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class BagPreset:
    """The experiment of a figure.

    The value of each field is from the text of the paper; if it is not stated there, from the script that the authors
    published for MNIST; else it is our choice.
    """

    name: str
    title: str
    plan: BagPlan
    text: Sequence[str]  # fields from the text of the paper
    script: Sequence[str]  # fields from the script
    ours: Mapping[str, str]  # fields of our choice, with reasons

    def sources(self) -> str:
        """The sources of the values, in three sentences."""
        named = ((f.replace("_", " ") for f in fields) for fields in (self.text, self.script))
        stated, scripted = (", ".join(fields) for fields in named)
        ours = "; ".join(f"{name.replace('_', ' ')} ({why})" for name, why in self.ours.items())
        return f"From the text: {stated}. From the published script: {scripted}. Our choice, stated by neither: {ours}."


_OPTIMISER: dict[str, Any] = {"lr": 1e-4, "weight_decay": 1e-4, "batch_size": 64}
_VALIDATION = "the script chooses the epoch on its test bags, we on bags of other images"
_COUNTS = (50, 100, 150, 200, 300, 500)

PRESETS: dict[str, BagPreset] = {
    preset.name: preset
    for preset in (
        BagPreset(
            "seibold4",
            "Seibold et al. 2020, Figure 4: MNIST-bags of three mean sizes against the number of training bags",
            BagPlan(
                method=("sgl", "max", "mean", "bil", "mmm"),
                bag_size=(10, 50, 100),
                bag_size_std=(2.0, 10.0, 20.0),
                train_bags=_COUNTS,
                network="lenet5",
                runs=10,
                epochs=(300,),
                **_OPTIMISER,
            ),
            text=("dataset", "positive_class", "bag_size", "network", "delta", "lam", "runs", "test_bags"),
            script=("method", "train_bags", "positives", "epochs", "lr", "weight_decay", "batch_size"),
            ours={
                "bag_size_std": "the text says Gaussian and the script 0; a fifth of the mean is MNIST-bags' of Ilse "
                "et al. 2018",
                "val_bags": _VALIDATION,
            },
        ),
        BagPreset(
            "seibold5a",
            "Seibold et al. 2020, Figure 5(a): the parts of SGL on MNIST-bags against the number of training bags",
            BagPlan(
                method=("max", "sgl-no-rescale-no-weight", "sgl-no-weight", "sgl"),
                bag_size=(50,),
                bag_size_std=(10.0,),
                train_bags=_COUNTS,
                network="lenet5",
                runs=10,
                epochs=(300,),
                **_OPTIMISER,
            ),
            text=("dataset", "positive_class", "method", "network", "delta", "lam", "runs", "test_bags"),
            script=("train_bags", "positives", "epochs", "lr", "weight_decay", "batch_size"),
            ours={
                "bag_size": "the text does not state it; 50 is the middle size of Figure 4",
                "bag_size_std": "as in seibold4",
                "val_bags": _VALIDATION,
            },
        ),
        BagPreset(
            "seibold6",
            "Seibold et al. 2020, Figure 6: CIFAR10-bags of two sizes against the positive instances in a bag",
            BagPlan(
                dataset="cifar10",
                positive_class="dog",
                method=("sgl", "max", "mean", "bil"),
                bag_size=(50, 100),
                bag_size_std=(0.0,),
                train_bags=(2500,),
                positives=("1", "2", "5", "10", "20"),
                network="resnet18",
                runs=5,
                epochs=(50,),
                test_bags=5000,
                **_OPTIMISER,
            ),
            text=(
                "dataset", "positive_class", "method", "bag_size", "bag_size_std", "train_bags", "test_bags", "network",
                "delta", "lam", "runs", "batch_size", "epochs",
            ),
            script=("lr", "weight_decay"),
            ours={
                "positives": "the text does not state the numbers of the figure",
                "val_bags": _VALIDATION,
            },
        ),
    )
}  # fmt: skip


def find_preset(name: str) -> BagPreset:
    """The preset of that name. Raises :class:`UsageError`, with all names, if it is unknown."""
    if name not in PRESETS:
        raise UsageError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
