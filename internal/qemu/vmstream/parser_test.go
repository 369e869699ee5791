package vmstream

import (
	"bytes"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

func precopy() *builder {
	w := build().header("pc-q35-7.2").command(cmdOpenReturnPath).command(2, 0, 0, 0, 1)
	w.start(block{name: "pc.ram", used: 1 << 20}, block{name: "pc.bios", used: 1 << 16})
	w.part().page("pc.ram", 0).page("", 4096).zeroPage("", 8192).eos()
	w.part().page("pc.bios", 0).zeroPage("pc.ram", 4096).u64(ramFlush).eos()
	w.end().page("", 8192).eos()
	return w.tail()
}

func TestMain(t *testing.T) {
	w := precopy()
	f := scan(t, New(), w.b, whole, never)
	if !bytes.Equal(f.bytes, w.b) {
		t.Fatal("stream came out changed")
	}
	if f.count(page.Full) != w.full || f.count(page.Zero) != w.zero || f.sealAt() != w.seal {
		t.Errorf("%d pages, %d zero, seal at %d; want %d, %d, %d",
			f.count(page.Full), f.count(page.Zero), f.sealAt(), w.full, w.zero, w.seal)
	}
	checkSplits(t, New, w.b, 200)
}
