package gateway

import "github.com/longhaul-project/longhaul/internal/page"

// late is the scanner of a connection whose source has said nothing for so long
// that it was opened at the destination: behind a postcopy's preempt channel
// pages come when a vCPU waits for them. Of what else begins with silence nothing
// is known.
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
	if !enough || scan.Facts().Format != rolePreempt {
		scan = l.formats.Opaque()
	}
	l.scan = scan
	if l.disk != nil && isNBD(b) {
		l.disk()
	}
	return true
}

// isNBD tells whether b begins with the flags of an NBD client, which answers a
// server's greeting: NBD_FLAG_C_FIXED_NEWSTYLE and perhaps NBD_FLAG_C_NO_ZEROES (NBD
// protocol, "Newstyle negotiation"). If something else begins so, it only has
// another weight.
func isNBD(b []byte) bool {
	return len(b) >= 4 && b[0] == 0 && b[1] == 0 && b[2] == 0 && (b[3] == 1 || b[3] == 3)
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
