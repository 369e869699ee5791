package inspect

// A sample follows keys, at most limit of them. When there are more it
// follows every second, then every fourth one and so on, chosen by a hash of
// the key, so that a key that is followed has been from the start.
//
// The keys that a sample follows are among those of each other sample with a
// lower level.
type sample[V any] struct {
	limit int
	level uint // one key of 1<<level is followed
	m     map[uint64]V
}

func newSample[V any](limit int) *sample[V] {
	return &sample[V]{limit: limit, m: make(map[uint64]V)}
}

// weight is the number of keys for which key stands; 0 if it is not followed.
func (s *sample[V]) weight(key uint64) int64 {
	if mix(key)>>(64-s.level) != 0 {
		return 0
	}
	return 1 << s.level
}

// put sets the value of a key that is followed.
func (s *sample[V]) put(key uint64, v V) {
	s.m[key] = v
	for len(s.m) > s.limit {
		s.level++
		for k := range s.m {
			if s.weight(k) == 0 {
				delete(s.m, k)
			}
		}
	}
}

// mix spreads keys that differ in few bits over all bits (MurmurHash3's
// fmix64).
func mix(k uint64) uint64 {
	k = (k ^ k>>33) * 0xff51afd7ed558ccd
	k = (k ^ k>>33) * 0xc4ceb9fe1a85ec53
	return k ^ k>>33
}
