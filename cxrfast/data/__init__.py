"""Data sets, image reading, transforms, splits and synthetic phantoms."""

from cxrfast.data.dataset import XrayDataset
from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.datasets.interface import DataOptions, DataSource
from cxrfast.data.datasets.registry import read_data
from cxrfast.data.datasets.torchxrayvision import from_torchxrayvision
from cxrfast.data.datasets.writing import write_coco, write_manifest
from cxrfast.data.dicom import read_dicom
from cxrfast.data.folds import Fold, FoldsBy, FoldsOf, FoldSplits, make_folds
from cxrfast.data.images import read_image
from cxrfast.data.labels import BOXED_CLASSES, CLASSES, NO_FINDING
from cxrfast.data.patches import boxes_to_aligned_patches, boxes_to_patches
from cxrfast.data.phantoms.writing import write_phantoms
from cxrfast.data.records import Record
from cxrfast.data.similarity.hashes import ImageHashes, hash_records
from cxrfast.data.similarity.label_sets import known_label_bits, label_bits
from cxrfast.data.similarity.negatives import SubsetBatches, draw_records, read_some, without_finding
from cxrfast.data.similarity.triplets import TripletBatchSampler, TripletMiner, Triplets
from cxrfast.data.splits import Splits, fractions_with, make_splits
from cxrfast.data.transforms import Augmentation, normalize, resize, to_input

__all__ = [
    "BOXED_CLASSES",
    "CLASSES",
    "NO_FINDING",
    "Augmentation",
    "DataOptions",
    "DataSource",
    "Fold",
    "FoldSplits",
    "FoldsBy",
    "FoldsOf",
    "ImageHashes",
    "Record",
    "Splits",
    "SubsetBatches",
    "TripletBatchSampler",
    "TripletMiner",
    "Triplets",
    "XrayDataset",
    "boxes_to_aligned_patches",
    "boxes_to_patches",
    "draw_records",
    "fractions_with",
    "from_torchxrayvision",
    "hash_records",
    "known_label_bits",
    "label_bits",
    "make_folds",
    "make_splits",
    "normalize",
    "read_chestxray14",
    "read_data",
    "read_dicom",
    "read_image",
    "read_some",
    "resize",
    "to_input",
    "without_finding",
    "write_coco",
    "write_manifest",
    "write_phantoms",
]
