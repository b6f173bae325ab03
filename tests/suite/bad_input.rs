//! What people, clients and disks get wrong, told by the real binary.
