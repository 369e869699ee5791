package gateway

import "github.com/longhaul-project/longhaul/dedup"

// What one core makes of a batch, in bytes on the wire per second, at the
// ratio of 3 that cold guest memory has (reduction.md; bench/results/dedup).
// Half of the measured speed: the hypervisor needs the cores as well.
const (
	coreZstd3 = 30 << 20
	coreZstd1 = 60 << 20
)

// codecFor chooses how batches are compressed, such that neither the cores nor
// the line wait for the other: the stronger the slower the line is. line is in
// bytes per second, 0 if it is not known yet.
func codecFor(line int64, cores int) dedup.Setting {
	switch {
	case line == 0:
		return dedup.Setting{Codec: dedup.Zstd, Level: 1}
	case line <= coreZstd3*int64(cores):
		return dedup.Setting{Codec: dedup.Zstd, Level: 3}
	case line <= coreZstd1*int64(cores):
		return dedup.Setting{Codec: dedup.Zstd, Level: 1}
	}
	return dedup.Setting{Codec: dedup.LZ4}
}
