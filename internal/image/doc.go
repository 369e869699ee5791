// Package image reads what templates, ISO files and disks hold, in blocks of
// 4 KiB, so that a store can be seeded with them. A file system's 4 KiB blocks
// are the pages of a guest's page cache.
//
//	open    Open          a file by its magic, or nbd://            image.go
//	        Walk          the files of a directory                  walk.go
//	span    disk.next     a file or a chain of qcow2 files, in      disk.go, raw.go, chain.go
//	                      spans of up to 1 MiB that may hold data
//	        remote.next   the same of an NBD server                 remote.go
//	block   Blocks.Next   spans to blocks; zero ones are left out   blocks.go
//
// The formats are qcow2, below this package, and internal/nbd.
//
// # What is promised
//
// Images and servers are not trusted. Memory does not depend on what they say:
// 1 MiB for a file, up to 20 MiB for a chain of qcow2 files, 17 MiB for NBD.
// Time is in proportion to the file (qcow2 tables that map it over and over are
// refused), or bounded by ctx (a server may claim any size). Errors name the
// image, the place and the reason.
//
// A qcow2 image may name another one as its backing file. It is followed only
// below the directory of the image, symbolic links included, so an image that
// somebody uploaded cannot make /etc/shadow a part of itself.
//
// What is read while somebody writes is of no certain time. For seeding that
// does no harm: each block is content that the store may hold.
package image
