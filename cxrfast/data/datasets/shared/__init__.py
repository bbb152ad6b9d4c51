"""What the readers of several data sets share: gathering of images, merging of readers, CheXpert labels."""
