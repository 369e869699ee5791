package vmstream

import "github.com/longhaul-project/longhaul/internal/page"

// maxOpaque is the most bytes that an opaque item spans: large enough to cost
// nothing per byte, small enough not to fill a batch.
const maxOpaque = 64 << 10

// opaque passes a stream of which nothing ever comes again: what is encrypted. It
// holds nothing back.
type opaque struct {
	format string
}

// Next implements page.Scanner.
func (o *opaque) Next(b []byte) (page.Item, int) {
	n := min(len(b), maxOpaque)
	return page.Item{Kind: page.Opaque, Data: b[:n]}, n
}

// Cut implements page.Scanner.
func (o *opaque) Cut(b []byte) page.Item {
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// Facts implements page.Scanner.
func (o *opaque) Facts() page.Facts { return page.Facts{Format: o.format} }
