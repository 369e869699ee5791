package vmstream

import "github.com/longhaul-project/longhaul/internal/page"

// maxOpaque is the most bytes that an opaque item spans: large enough to cost
// nothing per byte, small enough not to fill a batch.
const maxOpaque = 64 << 10

// Opaque passes a stream that has no structure for us. It holds nothing back.
type Opaque struct {
	format string
}

// NewOpaque returns a scanner for a stream of unknown kind.
func NewOpaque() *Opaque { return newOpaque("opaque") }

func newOpaque(format string) *Opaque { return &Opaque{format: format} }

// Next implements page.Scanner.
func (o *Opaque) Next(b []byte) (page.Item, int) {
	n := min(len(b), maxOpaque)
	return page.Item{Kind: page.Opaque, Data: b[:n]}, n
}

// Cut implements page.Scanner.
func (o *Opaque) Cut(b []byte) page.Item {
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// Facts implements page.Scanner.
func (o *Opaque) Facts() page.Facts { return page.Facts{Format: o.format} }
