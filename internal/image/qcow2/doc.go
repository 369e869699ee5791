// Package qcow2 reads QEMU's copy-on-write images, versions 2 and 3: which
// spans of the disk a file holds, and their bytes. It opens no files and takes
// no one's word: every offset is checked against the file, memory is fixed, and
// an error names the byte of the file where it stands.
//
// The format is QEMU's docs/interop/qcow2.txt. All numbers are big endian:
//
//	cluster 0        header | extensions | name of the backing file
//	L1 table         8 bytes for each L2 table, 0 is none       | 63 | 55 offset 9 |
//	L2 table         one cluster; 8 bytes for each cluster:
//	    standard     | 63 copied | 62 = 0 | 55 offset 9 | 0 reads as zero |
//	    compressed   | 62 = 1 | 61 more sectors x | x-1 offset 0 |   x = 62 - (cluster bits - 8)
//	    extended     a standard one, then | 63 zero 32 | 31 allocated 0 | of 32 subclusters
//	clusters         where the tables point, in any order
//
// Clusters are 512 bytes to 2 MiB. Compressed ones are raw deflate or zstd.
// What an entry leaves open belongs to the backing file, or is zero.
//
// Encryption, external data files and features that we do not know are
// refused. Refcounts, snapshots, bitmaps and the state of a VM are not looked
// at, so an image that was not closed (dirty) is read like any other.
package qcow2
