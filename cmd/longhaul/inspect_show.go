package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhaul/inspect"
)

// writeCapture shows what was found in one capture; known says from where the peer
// knows pages, if from anywhere.
func writeCapture(w io.Writer, f inspect.File, known string) error {
	name := captureName(f.Name)
	if f.Gzip {
		name += " (gzip)"
	}
	fmt.Fprintln(w, name)
	if err := writeFacts(w, f); err != nil {
		return err
	}
	if f.Pages.All > 0 {
		if err := writePages(w, f.Pages, known); err != nil {
			return err
		}
	}
	if err := writeMethods(w, f.Bytes, f.Methods, known); err != nil {
		return err
	}
	fmt.Fprintln(w, "  What Longhaul would send was decoded with a store of its own: byte-exact.")
	if f.Evicted {
		fmt.Fprintln(w, "  Its store was too small for all pages; a larger --store-memory may leave less.")
	}
	_, err := fmt.Fprintln(w)
	return err
}

// writeFacts shows what a capture says of itself.
func writeFacts(w io.Writer, f inspect.File) error {
	t := newTable(w)
	t.row("  stream", size(f.Bytes)+", "+kind(f))
	if f.Packed > 0 {
		t.row("  captured", size(f.Packed)+", as QEMU has compressed it")
	}
	if f.Machine != "" {
		t.row("  machine", fmt.Sprintf("%s, pages of %s", f.Machine, size(int64(f.PageSize))))
	}
	if f.Streams > 1 {
		t.row("  migrations", fmt.Sprintf("%d in a row; format and machine are the first one's", f.Streams))
	}
	if f.Pages.All > 0 {
		t.row("  rounds", fmt.Sprintf("about %d", f.Rounds)) // as page.Facts counts
	}
	t.row("  opaque", size(f.Opaque)+", "+share(f.Opaque, f.Bytes))
	if f.Sealed != "" {
		t.row("  pages", sealed(f.Sealed))
	}
	if f.Lost != "" {
		t.row("  structure", "lost: "+f.Lost)
	}
	if f.CutShort {
		t.row("  ends", "before it is complete: a capture that was cut, or a migration that failed")
	}
	return t.flush()
}

// kind says what the capture is.
func kind(f inspect.File) string {
	text := map[string]string{
		"qemu":         "QEMU's main channel, precopy",
		"qemu-multifd": "a multifd channel of QEMU",
		"qemu-preempt": "a preempt channel of QEMU",
		"qemu-recover": "QEMU's main channel, after a postcopy was interrupted",
		"nbd":          "what an NBD client writes to a disk",
		"tls":          "TLS: what is encrypted cannot be looked into",
		"opaque":       "no stream of QEMU that Longhaul knows",
	}[f.Format]
	if f.Format == "qemu" && f.Postcopy {
		text = "QEMU's main channel, postcopy"
	}
	text = or(text, f.Format)
	if f.ReturnPath {
		text += ", with a return path"
	}
	return text
}

func writePages(w io.Writer, p inspect.Pages, known string) error {
	fmt.Fprintln(w)
	t := newTable(w, "  PAGES", "COUNT", "OF ALL")
	row := func(name string, n int64) { t.row("  "+name, n, share(n, p.All)) }
	row("all", p.All)
	row("zero", p.Zero)
	row("resent as they were", p.ResentSame)
	row("duplicates", p.Duplicate)
	row("distinct", p.Distinct)
	if p.Differences > 0 {
		row("differences (XBZRLE)", p.Differences)
	}
	if known != "" {
		row("  known from "+known, p.Known)
	}
	row("resent and changed", p.ResentChanged)
	row("  in less than 64 of 512 words", p.ChangedLittle)
	if p.Sampled {
		t.row("  From \"resent\" on estimated from a sample of the pages.")
	}
	return t.flush()
}

// methodName is a method as people read it.
func methodName(m inspect.Method) string {
	return or(map[string]string{
		inspect.LZ4:           "lz4, whole stream",
		inspect.Zstd1:         "zstd 1, whole stream",
		inspect.Zstd3:         "zstd 3, whole stream",
		inspect.Dedup:         "zero pages and duplicates only",
		inspect.Longhaul1:     "Longhaul, zstd 1",
		inspect.Longhaul3:     "Longhaul, zstd 3",
		inspect.LonghaulFold:  "Longhaul, fold",
		inspect.LonghaulPress: "Longhaul, press",
	}[m.Name], m.Name)
}

func writeMethods(w io.Writer, all int64, methods []inspect.Method, known string) error {
	fmt.Fprintln(w)
	head := []any{"  METHOD", "LEFT", "OF STREAM"}
	if known != "" {
		head = append(head, knownHead(known), "OF STREAM")
	}
	t := newTable(w, head...)
	for _, m := range methods {
		cells := []any{"  " + methodName(m), size(m.Left), share(m.Left, all)}
		if known != "" && m.Known != nil {
			cells = append(cells, size(*m.Known), share(*m.Known, all))
		} else if known != "" {
			cells = append(cells, "-", "-")
		}
		t.row(cells...)
	}
	return t.flush()
}

// knownHead is the head of a column of bytes left, given from where the peer knows pages.
func knownHead(known string) string {
	if strings.HasPrefix(known, "the store") { // it is there all the time
		return "WITH " + strings.ToUpper(known)
	}
	return "AFTER " + strings.ToUpper(known)
}

// writeTotal sums several captures up.
func writeTotal(w io.Writer, doc inspection) error {
	if doc.Total == nil {
		return nil
	}
	fmt.Fprintf(w, "all %d files\n  stream  %s\n", len(doc.Files), size(doc.Total.Bytes))
	return writeMethods(w, doc.Total.Bytes, doc.Total.Methods, doc.known())
}

// share is a part of a whole for people: "12.5 %".
func share(part, all int64) string {
	if all == 0 {
		return "-"
	}
	p := 100 * float64(part) / float64(all)
	if part > 0 && p < 0.005 {
		return "< 0.01 %"
	}
	return short(p) + " %"
}

// progress shows on a terminal how much of a file was read.
type progress struct {
	r     io.Reader
	w     io.Writer
	width func() int // of the terminal in columns; 0: it is none
	name  string
	size  int64 // of the file in bytes; 0: nobody knows

	read         int64
	began, drawn time.Time
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.read += int64(n)
	p.show(time.Now())
	return n, err
}

func (p *progress) show(now time.Time) {
	if now.Sub(p.drawn) < redraw {
		return
	}
	width := p.width()
	if width == 0 {
		return
	}
	p.drawn = now
	// ECMA-48 EL: what was longer before is erased. stderr may be gone.
	_, _ = io.WriteString(p.w, "\r"+cut(p.line(now), width)+"\x1b[K")
}

// line is "NAME: 12 MiB of 1 GiB, 1 %, 30 MiB/s, 40 s to go".
func (p *progress) line(now time.Time) string {
	text := p.name + ": " + size(p.read)
	if p.size > 0 {
		text += fmt.Sprintf(" of %s, %s %%", size(p.size), strconv.Itoa(int(100*min(p.read, p.size)/p.size)))
	}
	took := now.Sub(p.began)
	if took < time.Second || p.read == 0 { // too early to tell
		return text
	}
	perSecond := float64(p.read) / took.Seconds()
	text += ", " + size(int64(perSecond)) + "/s"
	if left := p.size - p.read; left > 0 {
		text += ", " + seconds(float64(left)/perSecond) + " to go"
	}
	return text
}

// clear makes room for what comes next.
func (p *progress) clear() {
	if !p.drawn.IsZero() {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
	}
}
