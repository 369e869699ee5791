package gateway

import (
	"testing"

	"github.com/longhaul-project/longhaul/dedup"
)

func TestCodecFollowsTheLine(t *testing.T) {
	const mbit = 1_000_000 / 8
	for _, c := range []struct {
		line  int64
		cores int
		want  dedup.Setting
	}{
		{0, 2, dedup.Setting{Codec: dedup.Zstd, Level: 1}},
		{10 * mbit, 2, dedup.Setting{Codec: dedup.Zstd, Level: 3}},
		{500 * mbit, 2, dedup.Setting{Codec: dedup.Zstd, Level: 3}},
		{500 * mbit, 1, dedup.Setting{Codec: dedup.Zstd, Level: 1}},
		{10_000 * mbit, 2, dedup.Setting{Codec: dedup.LZ4}},
		{10_000 * mbit, 64, dedup.Setting{Codec: dedup.Zstd, Level: 3}},
	} {
		if got := codecFor(c.line, c.cores); got != c.want {
			t.Errorf("%d bytes a second on %d cores: %+v, want %+v", c.line, c.cores, got, c.want)
		}
	}
}
