package inspect

// File is what was found in one capture.
type File struct {
	Name    string `json:"file"`
	Gzip    bool   `json:"gzip,omitempty"` // it was compressed; all that follows is of what is in it
	Bytes   int64  `json:"stream_bytes"`
	Packed  int64  `json:"packed_bytes,omitempty"` // as captured, if QEMU has compressed it; all else is of what that expands to
	Streams int    `json:"streams"`                // migrations in it, one after the other

	Format     string `json:"format"` // of the first stream, as page.Facts has it
	Machine    string `json:"machine,omitempty"`
	PageSize   int    `json:"page_size_bytes,omitempty"`
	ReturnPath bool   `json:"return_path"`
	Postcopy   bool   `json:"postcopy"`
	Rounds     int    `json:"rounds"`              // of all streams
	Sealed     string `json:"sealed,omitempty"`    // how QEMU has compressed pages that Longhaul does not expand: "compress", "qpl", "uadk" or "qatzip"
	Lost       string `json:"lost,omitempty"`      // why structure was lost, of the first stream that lost it
	CutShort   bool   `json:"cut_short,omitempty"` // a stream ends before all memory was sent, or in the middle of something
	Opaque     int64  `json:"opaque_bytes"`        // not pages or their heads

	Pages   Pages    `json:"pages"`
	Methods []Method `json:"methods"`

	// Evicted tells that the store of Longhaul was too small for all that it
	// was sent so far. One that began with what is on disk keeps what came first.
	Evicted bool `json:"store_evicted,omitempty"`
}

// Pages counts pages, each time that one was sent; the package comment says
// what the kinds mean.
type Pages struct {
	All           int64 `json:"all"`
	Zero          int64 `json:"zero"`
	ResentSame    int64 `json:"resent_same"`
	Duplicate     int64 `json:"duplicate"`
	Distinct      int64 `json:"distinct"`
	Differences   int64 `json:"differences,omitempty"` // sent by XBZRLE
	Known         int64 `json:"known"`                 // of the distinct, those that a store or an earlier capture has
	ResentChanged int64 `json:"resent_changed"`        // of all
	ChangedLittle int64 `json:"changed_little"`        // of the changed

	Sampled bool `json:"sampled,omitempty"` // estimated from a sample of the pages
}

// Method is a way to carry a capture.
type Method struct {
	Name string `json:"method"`
	Left int64  `json:"left_bytes"`
	// Known is Left with what the peer has of a store, and of the captures before
	// this one. Nil: the method knows nothing of them, or there are none.
	Known *int64 `json:"left_known_bytes,omitempty"`
	// Verified: what is left was decoded, and gave the capture's bytes.
	Verified bool `json:"verified,omitempty"`
}

// Names of the methods, in the order in which a File has them.
const (
	LZ4           = "lz4"
	Zstd1         = "zstd-1"
	Zstd3         = "zstd-3"
	Dedup         = "zero+dedup"
	Longhaul1     = "longhaul-zstd-1"
	Longhaul3     = "longhaul-zstd-3"
	LonghaulFold  = "longhaul-fold"
	LonghaulPress = "longhaul-press" // if Options ask for it
)

// Total sums captures up.
type Total struct {
	Bytes   int64    `json:"stream_bytes"`
	Methods []Method `json:"methods"`
}

// Sum is the total of files, in which a method that knows of the captures
// before has Known.
func Sum(files []File) Total {
	var t Total
	for _, f := range files {
		t.Bytes += f.Bytes
		if t.Methods == nil {
			t.Methods = make([]Method, len(f.Methods))
			for i, m := range f.Methods {
				t.Methods[i] = Method{Name: m.Name, Verified: m.Verified}
			}
		}
		for i, m := range f.Methods {
			s := &t.Methods[i]
			if m.Known != nil && s.Known == nil {
				before := s.Left // the first capture knows of none
				s.Known = &before
			}
			s.Left += m.Left
			if m.Known != nil {
				*s.Known += *m.Known
			}
			s.Verified = s.Verified && m.Verified
		}
	}
	return t
}
