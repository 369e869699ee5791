package control

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestRecord(t *testing.T) {
	r := Record{Kind: Echo, Seq: 0x0102030405060708, Beat: 9}
	enc := r.Append(nil)
	if got, want := hex.EncodeToString(enc), "0200000000000000"+"0102030405060708"+"0000000000000009"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for n := range enc {
		if _, err := ReadRecord(bytes.NewReader(enc[:n])); err == nil {
			t.Errorf("%d bytes are a record", n)
		}
	}
}

// FuzzReadRecord: what is read is written the same.
func FuzzReadRecord(f *testing.F) {
	f.Add(Record{Tick, 1, 2}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadRecord(bytes.NewReader(b))
		if err == nil && !bytes.Equal(r.Append(nil), b[:RecordLen]) {
			t.Errorf("%x is read as %+v", b, r)
		}
	})
}
