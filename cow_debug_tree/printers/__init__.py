"""Items as text: for every kind of item its declaration, a format string, and what is odd about it.

The words, their order and their blanks are those of ``btrfs inspect-internal dump-tree``, so that what people
and scripts know of it holds here.
"""
