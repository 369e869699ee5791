// Package vmstream cuts the streams of a QEMU live migration into items, such
// that guest pages are seen as pages. It knows the streams of QEMU 6.2 to 11.1
// and of all targets; what it does not know passes as opaque bytes. It never
// changes, holds or loses a byte: a guess that is wrong costs bandwidth only.
//
// # Channels
//
// Recognise tells by the first bytes of a connection which one it is:
//
//	51 45 56 4d "QEVM"      main        page-aware
//	11 22 33 44             multifd     page-aware; Multifd.ID tells its number
//	08 00 01..0b            recovery    page-aware: the main channel after a postcopy pause
//	00 00 00 01, an option  NBD         page-aware: the blocks of a disk (nbd.Writes)
//	00 …, a named ram word  preempt     page-aware: pages that a vCPU waits for
//	16 03                   TLS         opaque
//	anything else           opaque, in chunks that its content bounds
//
// A preempt channel is usually silent at first, as an NBD client is, for which the
// server has to speak: it has to be opened at the destination before it is known
// which of the two it is.
//
// # The main channel
//
// Integers are big-endian; cstr is one length byte and as many bytes.
//
//	"QEVM" | u32 3 | [configuration] | element*
//
//	00  EOF           [06 VMDESCRIPTION u32 len | JSON]
//	01  SECTION_START u32 id | cstr name | u32 instance | u32 version | BODY | footer
//	02  SECTION_PART  u32 id | BODY | footer
//	03  SECTION_END   u32 id | BODY | footer
//	04  SECTION_FULL  as SECTION_START: the state of a device that is sent once
//	07  CONFIGURATION u32 len | machine type | subsection*
//	05  subsection    cstr name | u32 version | fields
//	08  COMMAND       u16 command | u16 len | payload;  PACKAGED (7): u32 n, then a blob of n bytes
//	7e  footer        u32 id
//
// A BODY has no length. Those of ram, dirty-bitmap, vfio, spapr/htab and
// s390-stattrib are walked by their grammar; any other is opaque until the
// footer of its section is found, followed by something that makes sense.
// ram's body is a row of records, each with a word in front whose low bits are
// flags and whose high bits are an offset in a block of guest memory:
//
//	| word 8 | [cstr block, unless CONTINUE] | payload |
//
//	02 ZERO          u8 0                       item Zero
//	04 MEM_SIZE      list of blocks             opaque, read
//	08 PAGE          one target page            item Full, if the page is 4 KiB
//	10 EOS           ends the body
//	20 CONTINUE      with a page: same block as the record before, on this channel
//	40 XBZRLE        u8 1 | u16 len | data      item XBZRLE, if the page is 4 KiB
//	100 COMPRESS     u32 len | data             opaque
//	200 FLUSH        nothing                    counts rounds
//
// CONTINUE outlives sections and commands. Pages of another size than 4 KiB
// are opaque, and the scanner stays in step with them.
//
// # Multifd channels
//
// An init packet, then packets: a header of a length that only the target's
// page size decides, and what it announces.
//
//	init    u32 magic | u32 1 | uuid[16] | u8 id | 39 unused           item Table
//	header  u32 magic | u32 1 | u32 flags | u32 slots | u32 normal |   item Table
//	        u32 next | u64 number | u32 zero | 28 unused |
//	        name[256] | u64 offset[slots]
//	payload normal pages                                               items Full
//
// slots is 512 KiB divided by the page size. The first offsets are those of the
// normal pages, in the order of the payload, the next ones those of zero pages,
// which have no payload (since 9.0). What no count covers is stale up to 8.x:
// other offsets, the name of a packet without pages, even next, which is the
// length of the payload only if normal is not 0. A packet with nothing but SYNC
// leaves slots 0 since 9.2; on a channel that has told no page size yet it is
// taken for one of 4 KiB pages.
//
//	flags   01 SYNC          last before the main channel's EOS or FLUSH; on data, too, up to 8.x
//	        3e method        0: pages; 1, 2: zlib, zstd; 4, 8, 16: qpl, uadk, qatzip: payload opaque
//	        40 device state  a header of 276 bytes, and a payload: both opaque (since 10.0)
//
// What zlib and zstd have compressed is opaque as well, unless the channel is
// read through Multifd.Unpack: then the pages follow the header as they are, and
// its field next is their length. A Packer puts such a channel back into a form
// that a destination reads which expects the method. The pages are the same,
// and so is all else but the payloads, which are longer, and next. Both ends
// digest what is between the two:
//
//	unpacked  init | packet* | [raw]          a packet of zlib or zstd with its pages
//	raw       "LHra" | 0 0 0 0 | bytes        from here on as the source wrote it
//
// Blocks are numbered on each channel on its own, by the headers that name
// them. A header that cannot be one ends what is understood: from it on the
// channel is opaque, and Facts.Lost says why.
//
// # Marks
//
//   - Seal: the first item after ram's SECTION_END (precopy), or the one that
//     begins PACKAGED (postcopy). A stream whose structure was lost never has
//     one; then Facts.Lost says why.
//   - Hold: all items of PACKAGED and its blob but the last, so that the
//     destination gets the last item, without Hold, and all of them together.
//     A blob of more than 64 MiB is not held.
//   - Flush: commands; everything after Seal; everything on the recovery and
//     preempt channels; the init packet of multifd and the last item of a
//     packet with SYNC; whatever Cut returns.
//
// Sources: migration/{savevm,ram,multifd,block-dirty-bitmap}.c, hw/vfio/migration.c,
// hw/ppc/spapr.c and hw/s390x/s390-stattrib.c of QEMU.
package vmstream
