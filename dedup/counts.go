package dedup

// Counts is what a batch, or all batches of a channel, consists of.
type Counts struct {
	Pages    int64 // pages, each time counted
	Zero     int64 // of these, all zero
	Refs     int64 // of these, known to the peer
	Deltas   int64 // of these, sent as a change of a known page
	Searched int64 // of the deltas, from a page that only a search by anchors finds; of an encoder
	Claims   int64 // of these, which the peer has from elsewhere, sent as hashes
	Literals int64 // of these, sent in full
	Opaque   int64 // bytes of stream that were not pages or their heads
	Fetched  int64 // times that a decoder asked its peer for what it should have held
	Raw      int64 // bytes of stream
	Plain    int64 // bytes that are left of it before they are compressed; of an encoder
	Wire     int64 // bytes of messages; an encoder knows them once compressed
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Pages += o.Pages
	c.Zero += o.Zero
	c.Refs += o.Refs
	c.Deltas += o.Deltas
	c.Searched += o.Searched
	c.Claims += o.Claims
	c.Literals += o.Literals
	c.Opaque += o.Opaque
	c.Fetched += o.Fetched
	c.Raw += o.Raw
	c.Plain += o.Plain
	c.Wire += o.Wire
}
