"""The items of each tree of a new filesystem, as sorted columns."""
