// Package xbzrle is the difference of two versions of a page as QEMU sends it
// (migration/xbzrle.c, docs/devel/migration: XBZRLE).
//
//	{ Same (uleb) | Changed (uleb) | Changed bytes of the new page }*
//
// Same is the number of bytes that have not changed, Changed that of those that
// have; both are base-128, least significant digit first, in one or two bytes.
// Only the first Same may be 0. What has not changed at the end is left out.
package xbzrle

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrForm means that a difference is none of QEMU's.
var ErrForm = errors.New("xbzrle: malformed difference")

// Apply makes the new page of the old one in dst, which is as long. It refuses
// what QEMU's decoder refuses.
func Apply(dst, old, diff []byte) error {
	copy(dst, old)
	at := 0
	for first := true; len(diff) > 0; first = false {
		same, n := small(diff)
		if n == 0 || same == 0 && !first {
			return ErrForm
		}
		diff = diff[n:]
		changed, n := small(diff)
		if n == 0 || changed == 0 {
			return ErrForm
		}
		diff = diff[n:]
		at += same
		if at+changed > len(dst) || changed > len(diff) {
			return ErrForm
		}
		at += copy(dst[at:], diff[:changed])
		diff = diff[changed:]
	}
	return nil
}

// small reads a number of at most two digits, which something has to follow; n
// is 0 if there is none.
func small(b []byte) (v, n int) {
	switch {
	case len(b) < 2:
		return 0, 0
	case b[0] < 0x80:
		return int(b[0]), 1
	case b[1] < 0x80:
		return int(b[0]&0x7f) | int(b[1])<<7, 2
	}
	return 0, 0
}

// Append appends the difference to b, as QEMU makes it: of old and new, two
// pages of the same length, a multiple of 8 and below 16 KiB.
func Append(b, old, new []byte) []byte {
	for at := 0; ; {
		same := run(old, new, at, true)
		if at+same == len(new) {
			return b
		}
		changed := run(old, new, at+same, false)
		b = binary.AppendUvarint(b, uint64(same))
		b = binary.AppendUvarint(b, uint64(changed))
		at += same
		b = append(b, new[at:at+changed]...)
		at += changed
	}
}

// run is how many bytes from at on are the same, or are not.
func run(old, new []byte, at int, same bool) int {
	i := at
	for i < len(new) {
		if i%8 == 0 && i+8 <= len(new) {
			x := binary.LittleEndian.Uint64(old[i:]) ^ binary.LittleEndian.Uint64(new[i:])
			n := sameBytes(x)
			if !same {
				n = changedBytes(x)
			}
			if i += n; n < 8 {
				break
			}
			continue
		}
		if old[i] == new[i] != same {
			break
		}
		i++
	}
	return i - at
}

// sameBytes is how many of the first bytes of x are zero.
func sameBytes(x uint64) int { return bits.TrailingZeros64(x) / 8 }

// changedBytes is how many of the first bytes of x are not zero. The lowest bit
// that is set shows the first zero byte; above it there may be false ones.
func changedBytes(x uint64) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	return bits.TrailingZeros64((x-low)&^x&high) / 8
}
