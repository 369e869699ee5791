package gateway

import "github.com/longhaul-project/longhaul/internal/page"

// late is the scanner of a connection whose source has said nothing for so long
// that it was opened at the destination: behind a postcopy's preempt channel
// pages come when a vCPU waits for them. Of what else begins with silence nothing
// is known.
type late struct {
	formats Formats
	scan    page.Scanner // nil before the first bytes
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
