package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A memo is a file of what a gateway need not do again. One that is lost costs that work,
// and so does one that is damaged: it says by a checksum what it was.
type memo struct{ path string }

// maxMemo bounds what is read of a memo, in bytes: the names of as many images as
// maxSeen.
const maxMemo = 256 << 20

// sealed is what stands in the file.
type sealed struct {
	Sum  string          `json:"sha256"` // of data, in hexadecimal digits
	Data json.RawMessage `json:"data"`
}

var errMemo = errors.New("is damaged")

// write replaces what the memo says.
func (m memo) write(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sealed{sumOf(data), data})
	if err != nil {
		return err
	}
	if len(b) > maxMemo {
		return fmt.Errorf("%s would take %d bytes; %d is the most", m.path, len(b), maxMemo)
	}
	return replaceFile(m.path, b)
}

// read fills in v, which is worth nothing after an error.
func (m memo) read(v any) error {
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMemo))
	if err != nil {
		return err
	}
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil || s.Sum != sumOf(s.Data) {
		return fmt.Errorf("%s %w", m.path, errMemo)
	}
	return json.Unmarshal(s.Data, v)
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
