"""Similar images: perceptual hashes, triplets, negatives."""
