"""Quota groups. Their items stand in the quota tree; a group's id is `level << 48 | id`."""

from cowlib.format.declare import BySize, Struct, u64

QgroupStatusItemV0 = Struct(
    "version" / u64 * "1",
    "generation" / u64 * "transaction of the last update; if older than the superblock's, counts are wrong",
    "flags" / u64 * "QgroupStatusFlag",
    "rescan" / u64 * "logical address in bytes a running rescan has reached",
)
"""The state of quotas, as before simple quotas. Key (0, QGROUP_STATUS, 0)."""

QgroupStatusItem = Struct(
    *QgroupStatusItemV0.subcons,
    "enable_gen" / u64 * "transaction that turned simple quotas on: older extents are not counted",
)
"""The state of quotas where simple quotas are in use. Key (0, QGROUP_STATUS, 0)."""

QgroupStatusPayload = BySize(QgroupStatusItem, QgroupStatusItemV0)

QgroupInfoItem = Struct(
    "generation" / u64 * "transaction of the last update",
    "rfer" / u64 * "bytes referred to",
    "rfer_cmpr" / u64 * "equal to rfer",
    "excl" / u64 * "bytes referred to by this group alone",
    "excl_cmpr" / u64 * "equal to excl",
)
"""What a group uses. Key (0, QGROUP_INFO, group)."""

QgroupLimitItem = Struct(
    "flags" / u64 * "QgroupLimitFlag: the limits in force",
    "max_rfer" / u64 * "bytes",
    "max_excl" / u64 * "bytes",
    "rsv_rfer" / u64 * "bytes",
    "rsv_excl" / u64 * "bytes",
)
"""What a group may use. Key (0, QGROUP_LIMIT, group).

Which group belongs to which is told by items without payload: (child, QGROUP_RELATION, parent) and the
reverse.
"""
