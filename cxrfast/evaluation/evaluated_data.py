"""Which data set an evaluation read, and how: part of its record."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from cxrfast.data.datasets.interface import DataOptions, DataSource, ReaderMerge, Uncertain, Views
from cxrfast.data.datasets.registry import layout_options


class EvaluatedData(BaseModel):
    """The data set that was evaluated, and how it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    layout: str
    labels: str = "auto"
    uncertain: Uncertain | None = None
    readers: ReaderMerge | None = None
    views: Views = "frontal"
    class_map: dict[str, str] = {}

    @classmethod
    def of(cls, source: DataSource, options: DataOptions) -> Self:
        return cls(
            path=str(source.root),
            layout=source.layout,
            labels=source.label_version if "labels" in layout_options(source.layout) else "auto",
            uncertain=options.uncertain,
            readers=options.readers,
            views=options.views,
            class_map=dict(options.class_map),
        )

    def options(self) -> DataOptions:
        """The options that read the same labels and boxes again. The image files need not exist."""
        return DataOptions(
            dataset=self.layout,
            labels=self.labels,
            uncertain=self.uncertain,
            readers=self.readers,
            views=self.views,
            class_map=self.class_map,
            images_required=False,
        )
