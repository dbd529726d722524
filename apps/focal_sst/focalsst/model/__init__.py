"""The sparse voxel detector in plain PyTorch: points in, oriented boxes out, without custom operations.

Words: a *voxel* is a cell of the grid that holds points; *cells* are its integer coordinates (sample, z, y, x), always
sorted and unique. The *encoder* mixes neighbouring voxels and *dilates*: it adds empty neighbours where the
*importance* says that an object is. A *window* is a block of cells, a *set* a fixed number of voxels of one window that
attend to each other. *BEV* (bird's-eye view) maps are `BCYX`: y runs down the rows, x along them. A *box* is
x, y, z, dx, dy, dz (metres, centre and full size), heading (radians around z) and, where it is labelled, a class that
counts from 1; rows of zeros pad a batch `BM8`.

Letters: P points, V voxels, N new voxels or free rows, T sets, K slots or classes, C channels, B samples, M boxes,
G boxes of a whole batch in a row.

`settings` loads no torch, and this file imports nothing, so that a config can be checked at once; the network is
`focalsst.model.detector.build_detector`.

Touches torch.
"""
