package dedup

// Counts is what a batch, or all batches of a channel, consists of.
type Counts struct {
	Pages    int64 // pages, each time counted
	Zero     int64 // of these, all zero
	Refs     int64 // of these, known to the peer
	Deltas   int64 // of these, sent as a change of a known page
	Literals int64 // of these, sent in full
	Opaque   int64 // bytes of stream that were not pages or their heads
	Fetched  int64 // times that a decoder asked its peer for what it should have held
	Raw      int64 // bytes of stream
	Wire     int64 // bytes of messages; an encoder knows them once compressed
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Pages += o.Pages
	c.Zero += o.Zero
	c.Refs += o.Refs
	c.Deltas += o.Deltas
	c.Literals += o.Literals
	c.Opaque += o.Opaque
	c.Fetched += o.Fetched
	c.Raw += o.Raw
	c.Wire += o.Wire
}
