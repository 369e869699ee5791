package tunnel

// A broadcast wakes all who wait for a change of what a mutex guards. The zero
// value works; the same mutex guards it.
type broadcast struct{ ch chan struct{} }

// next is closed at the next fire.
func (b *broadcast) next() <-chan struct{} {
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) fire() {
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
