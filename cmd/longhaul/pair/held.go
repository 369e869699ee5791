package pair

// Held is what one site's gateway holds: what must not grow with the number
// of moves.
type Held struct {
	Resident   int64 `json:"resident_bytes"`
	Files      int   `json:"open_files"`
	Goroutines int   `json:"goroutines"`
	FDB        int   `json:"fdb_entries"` // of the site's bridge and overlay port
}

// How much more a gateway may hold after many moves than after the first round
// trip.
const (
	fdbDrift       = 4 // entries that come and go with the client's own neighbours
	fileDrift      = 8
	goroutineDrift = 32
	residentDrift  = 256 << 20 // bytes: the store fills up to its budget
)

// Drifted tells whether now is more than noise above first.
func (first Held) Drifted(now Held) bool {
	return now.FDB > first.FDB+fdbDrift || now.Files > first.Files+fileDrift ||
		now.Goroutines > first.Goroutines+goroutineDrift || now.Resident > first.Resident+residentDrift
}
