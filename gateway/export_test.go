package gateway

// Crash is the nearest thing to kill -9 inside one process: from now on the
// gateway writes nothing down and reaches nobody. The caller takes away its
// control connections and its link.
func (g *Gateway) Crash() {
	g.journal.Close()
	g.stop()
}

// OpenMoves lists the moves that the journal holds open.
func (g *Gateway) OpenMoves() (open []Entry, err error) {
	all, err := g.journal.All()
	for _, e := range all {
		if e.Open() {
			open = append(open, e)
		}
	}
	return open, err
}
