"""Trees: nodes into columns, and sorted columns into nodes."""

from cowlib.btree.batches import ItemBatch, ItemRows, ItemSource
from cowlib.btree.nodes import Items, Nodes, Pointers, gather, ragged_index
from cowlib.btree.pack import NodeStyle, Plan, build, plan
from cowlib.btree.reader import TreeReader, TreeRoot
from cowlib.btree.table import ItemTable, copy_ragged, scatter

__all__ = [
    "ItemBatch",
    "ItemRows",
    "ItemSource",
    "ItemTable",
    "Items",
    "NodeStyle",
    "Nodes",
    "Plan",
    "Pointers",
    "TreeReader",
    "TreeRoot",
    "build",
    "copy_ragged",
    "gather",
    "plan",
    "ragged_index",
    "scatter",
]
