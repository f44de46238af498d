"""The data of files, from a source into extents on the devices."""
