"""The options shared by methods with a backbone: the network, its initial weights and its input normalisation."""

from typing import Any

from pydantic import Field, model_validator

from cxrfast.methods.base import MethodOptions
from cxrfast.models import Backbone, InputScaling, check_backbone, create_backbone, input_statistics

_GREY = (0.5,), (0.5,)  # [-1, 1]
_AUTO: Any = "auto"  # resolved before fields are validated


class BackboneOptions(MethodOptions):
    """Options of the backbone.

    The default of `input_mean` and `input_std` is "auto". With random initial weights it means greyscale in [-1, 1].
    With pretrained weights it means the normalisation that they were trained with: for most networks ImageNet's mean
    and standard deviation in three channels, for pre-activation ResNets and EfficientNet-Lite [-1, 1]. "auto" is
    resolved on construction, so that options always contain, and are saved with, the values themselves.
    """

    backbone: str = Field(description="any timm network with a spatial map; see docs/backbones.md")
    pretrained: bool | str = Field(False, description="true: ImageNet weights from timm; or a file of weights")
    antialias: bool = Field(False, description="blur-pools in the backbone (Zhang 2019), if it is a CNN")
    antialias_stem: bool = Field(False, description="with antialias, a blur-pool for the first convolution too")
    output_stride: int | None = Field(
        None, ge=1, description="image pixels per feature-map pixel; null: the network's own"
    )
    freeze_backbone: bool = Field(False, description="keep the pretrained backbone fixed; train only the other layers")
    input_mean: tuple[float, ...] = Field(
        default=_AUTO,
        description="input mean per channel, of grey in [0, 1]; auto: for [-1, 1], or that of the pretrained weights",
    )
    input_std: tuple[float, ...] = Field(
        default=_AUTO,
        description="input standard deviation per channel; three values replicate grey to RGB",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_input(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {name: values.get(name, "auto") for name in ("input_mean", "input_std")}
        if "auto" not in given.values():
            return values
        backbone = values.get("backbone", cls.model_fields["backbone"].default)
        known = isinstance(backbone, str) and values.get("pretrained", False)
        auto = dict(zip(given, input_statistics(backbone) if known else _GREY, strict=True))
        return {**values, **{name: auto[name] if value == "auto" else value for name, value in given.items()}}

    @model_validator(mode="after")
    def _network_and_input_fit(self) -> "BackboneOptions":
        check_backbone(self.backbone)
        if not self.input_mean or len(self.input_mean) != len(self.input_std) or min(self.input_std) <= 0:
            raise ValueError("expected input_mean and input_std of equal length, with input_std above 0")
        return self

    def build_backbone(self, image_size: int, crop: float = 1.0) -> Backbone:
        """The backbone for images of `image_size` and for training crops of `crop` times that size."""
        return create_backbone(
            self.backbone,
            pretrained=self.pretrained,
            in_chans=len(self.input_mean),
            antialias=self.antialias,
            antialias_stem=self.antialias_stem,
            output_stride=self.output_stride,
            image_size=image_size,
            crop_size=round(crop * image_size),
        )

    def build_scaling(self) -> InputScaling:
        return InputScaling(self.input_mean, self.input_std)
