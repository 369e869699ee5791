package dedup

import (
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// Expanded is a batch whose columns are decompressed: what Decode needs.
type Expanded struct {
	// Raw is the number of bytes of stream that the batch stands for, as
	// its sender says.
	Raw int

	msg  record.Message // without its columns
	bufs *buffers       // the columns; nil once decoded
	wire int
}

var errTrailing = errors.New("bytes follow the message")

// Expand parses a message and decompresses it. Any goroutine may call it, for
// many messages at once. Whatever msg holds, it uses no more memory than
// three times record.MaxRaw. It does not keep msg.
func Expand(msg []byte) (*Expanded, error) {
	m, n, err := record.Parse(msg)
	if err != nil {
		return nil, err
	}
	if n != len(msg) {
		return nil, fmt.Errorf("batch %d: %d %w", m.Seq, len(msg)-n, errTrailing)
	}
	x := &Expanded{Raw: m.Raw, msg: m, wire: len(msg), bufs: bufferPool.Get().(*buffers)}
	f := x.bufs
	for i, col := range [record.Columns]*[]byte{&f.ops, &f.deltas, &f.literals, &f.opaque} {
		p := m.Parts[i]
		if p.Codec == 0 {
			continue
		}
		if *col, err = expand(grow(*col, p.Size)[:0], p); err != nil {
			x.release()
			return nil, fmt.Errorf("batch %d: column %d: %w", m.Seq, i, err)
		}
	}
	x.msg.Parts = [record.Columns]record.Part{}
	return x, nil
}

// release gives the buffers back.
func (x *Expanded) release() {
	if x.bufs != nil {
		x.bufs.reset()
		bufferPool.Put(x.bufs)
		x.bufs = nil
	}
}
