"""MapSage: semantic segmentation of aerial images with SegFormer, trained through interruptions."""
