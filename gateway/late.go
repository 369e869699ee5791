package gateway

import "github.com/longhaul-project/longhaul/internal/page"

// late is the scanner of a connection whose source has said nothing for so long
// that it was opened at the destination: behind a postcopy's preempt channel
// pages come when a vCPU waits for them, the client that writes a disk answers
// a server's greeting, and on a busy host a multifd channel is long in saying its
// first word. Of what else begins with silence nothing is known.
type late struct {
	formats Formats
	scan    page.Scanner // nil before the first bytes
	disk    func()       // called when it carries blocks of a disk; may be nil
}

// recognise looks at the first bytes; with last there are no more of them.
func (l *late) recognise(b []byte, last bool) bool {
	if l.scan != nil {
		return true
	}
	scan, enough := l.formats.Recognise(b)
	if !enough && !last {
		return false
	}
	format := ""
	if scan != nil {
		format = scan.Facts().Format
	}
	switch format {
	case rolePreempt, roleMultifd:
	case formatDisk:
		scan = &blocks{Scanner: scan, pieces: make(map[uint64]struct{})}
		if l.disk != nil {
			l.disk()
		}
	default:
		scan = l.formats.Opaque()
	}
	l.scan = scan
	return true
}

// Next implements page.Scanner.
func (l *late) Next(b []byte) (page.Item, int) {
	if !l.recognise(b, false) {
		return page.Item{}, 0
	}
	return l.scan.Next(b)
}

// Cut implements page.Scanner.
func (l *late) Cut(b []byte) page.Item {
	l.recognise(b, true)
	return l.scan.Cut(b)
}

// Facts implements page.Scanner.
func (l *late) Facts() page.Facts {
	if l.scan == nil {
		return page.Facts{Format: "opaque"}
	}
	return l.scan.Facts()
}

// Bounds of what is remembered of a disk by the address of its blocks.
const (
	diskPiece = 4 << 20 // bytes of it that take 4 KiB of memory at each end (dedup/versions.go)
	maxPieces = 1024    // 4 MiB of memory, for 4 GiB of a disk that is written densely
)

// blocks is the scanner of a connection that carries blocks of a disk. Both ends
// remember, outside the budget of their store, which page came last for an address. A
// guest's memory comes again and again; of a disk most blocks come once, and gateways
// carry many disks side by side. So those of the first pieces that are written have an
// address, and the others are found by their content alone.
type blocks struct {
	page.Scanner
	pieces map[uint64]struct{}
}

// Next implements page.Scanner.
func (d *blocks) Next(b []byte) (page.Item, int) {
	it, n := d.Scanner.Next(b)
	if it.Kind == page.Full && !d.remembers(it.Addr.Offset/diskPiece) {
		it.Addr = page.Addr{}
	}
	return it, n
}

func (d *blocks) remembers(piece uint64) bool {
	if _, ok := d.pieces[piece]; ok {
		return true
	}
	if len(d.pieces) == maxPieces {
		return false
	}
	d.pieces[piece] = struct{}{}
	return true
}
