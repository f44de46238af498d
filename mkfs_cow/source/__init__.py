"""What goes into a new filesystem: a directory or an archive, as tables."""
