"""``cow-debug-tree``: shows superblocks, trees and statistics of a btrfs that is not mounted, as text or
JSON.
"""
