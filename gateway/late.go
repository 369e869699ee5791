package gateway

import "github.com/longhaul-project/longhaul/internal/page"

// late is the scanner of a connection whose source has said nothing for so long
// that it was opened at the destination: behind a postcopy's preempt channel
// pages come when a vCPU waits for them, and the client that writes a disk answers
// a server's greeting. Of what else begins with silence nothing is known.
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
	if format != rolePreempt && format != formatDisk {
		scan = l.formats.Opaque()
	}
	l.scan = scan
	if l.disk != nil && format == formatDisk {
		l.disk()
	}
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
