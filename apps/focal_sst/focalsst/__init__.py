"""Focal-SST: 3-D detection of boxes and divers in sonar point clouds, on any machine that runs torch."""
