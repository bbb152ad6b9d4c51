"""The fourteen diseases of ChestX-ray14, spelt and ordered as its authors do."""

CLASSES: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

# The classes for which radiologists drew boxes on a part of the images.
BOXED_CLASSES: tuple[str, ...] = CLASSES[:8]

# The label of an image without any of the classes. It is not a class: such an image has an empty set of labels.
NO_FINDING = "No Finding"
